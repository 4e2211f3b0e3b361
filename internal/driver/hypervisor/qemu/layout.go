package qemu

// A layout is the set of devices that a machine gets beside those that it is asked to
// have, and where they stand. A guest that runs, or whose memory is saved, keeps the
// one it was started with; a start from cold brings the newest. Each adds behind all
// that was there before, so that no device of an earlier layout changes its place.
const (
	// layoutFirst has neither a drive whose medium changes nor what came later.
	layoutFirst = iota
	// layoutDrive has a drive whose medium changes.
	layoutDrive

	layoutNewest = layoutDrive
)

// laidOut gives the record with a layout, and a machine without what that does not
// have.
func (r machineRecord) laidOut(layout int) machineRecord {
	r.Layout = layout
	if layout < layoutDrive {
		r.Machine.Drive, r.Machine.Medium = false, nil
	}
	return r
}
