// Package vocab is the floor everyone stands on: the words of the product as
// types (id, gen, errs, clock, unit). It imports the standard library and two
// leaf libraries (uuid, x/sys) and nothing of ours.
package vocab
