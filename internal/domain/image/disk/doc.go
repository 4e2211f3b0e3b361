// Package disk reads virtual disks in the formats of other programs and writes
// them as qcow2, so that no tool ever touches a stranger's bytes.
//
// It takes VMDK (monolithicSparse, streamOptimized), VHD (fixed, dynamic), VHDX and
// VDI (dynamic, static). What names another file, or builds on one, is refused: a
// parent, several extents, a path in a descriptor.
//
// Open reads headers only, a bounded part of the file. Walk follows the tables, a
// window at a time, and checks each entry as it comes to it: inside the file,
// aligned, and no more blocks than the file has room for, so that a small file
// cannot say that it is a huge disk full of data. Memory is bounded by a block.
//
// Layouts are from the published formats: "Virtual Disk Format 5.0" and the
// "Virtual Hard Disk Image Format Specification", [MS-VHDX], and VirtualBox's
// VDICore.h; where these leave a choice, what QEMU reads is right.
//
// What it does not do: it opens nothing, keeps nothing, and knows no hypervisor.
package disk
