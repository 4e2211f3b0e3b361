// Package ova reads appliances: a tar archive (OVA) of a description of a machine
// (OVF, DSP0243 of the DMTF), its disks, and a manifest of what they must be.
//
// Open looks at every entry before anything is believed: an appliance is a flat row
// of plain files, so folders, paths, links, devices, sparse files and names that
// come twice are refused, with errs.ArchiveUnsafe and the entry's name. Nothing is
// ever unpacked: a disk is a section of the archive. Verify holds the content
// against the manifest, which must be there.
//
// The description is XML of a bounded size, depth and number of elements, without a
// document type. Machine takes from it what a machine of ours has, and says what it
// leaves out.
package ova
