// Package dir keeps volumes as qcow2 files in one local folder.
//
// # Who owns what
//
// The driver owns the folder. A volume is two files: <id>.qcow2, which belongs to
// the guest while one runs, and <id>.json, which says what the volume is and is
// written last. The JSON alone is believed: a guest's process can write anything
// into its image, the name of a backing file included.
//
// A volume that guests only read is <id>.raw, with a JSON that says so: the file
// is replaced whole, and whoever has the old one open keeps it.
//
// # Crash and duplicate
//
// Create writes the image under a temporary name, flushes and renames it, and then
// writes the JSON the same way; a volume exists from that last rename on. Delete
// goes the other way round. What an interrupted call leaves (a temporary file, an
// image without JSON) is swept when the folder is opened. A lock file keeps a
// second driver out, which might sweep what the first is writing.
//
// # What it does not do
//
// It opens no image that a guest may have written, and runs no program: an empty
// qcow2 file is a few hundred bytes that are written here. The base of a volume is
// the caller's, who keeps it in place and readable for guests.
package dir
