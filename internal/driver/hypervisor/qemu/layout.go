package qemu

// A layout is the set of devices that a machine gets beside those that it is asked to
// have, and where they stand. A guest that runs, or whose memory is saved, keeps the
// one it was started with; a start from cold brings the newest. Each adds behind all
// that was there before, so that no device of an earlier layout changes its place.
const (
	// layoutDrive has a drive whose medium changes; 0, the first, had none.
	layoutDrive = 1
	// layoutTablet has a pointer for its screen.
	layoutTablet = 2

	layoutNewest = layoutTablet
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
