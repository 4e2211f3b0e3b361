// Package manifest reads the documents that declare objects, and compares them.
//
// What is read is YAML without its traps: no aliases, so that a short file stays
// a short document; no tags but the core ones; no field twice; bounded in size,
// depth and number. What the fields are is not known here: the server reads the
// JSON that is made of it, by the one strict decoder it has, and names what it
// refuses by a JSON pointer. Place leads from there back to file and line.
package manifest
