package nodelink

// SetMedium changes what is in a VM's CD drive: of a guest that runs at once, and of what
// the node starts by its own record.
type SetMedium struct {
	Header
	// Medium is nil for none. Its file is in the node's cache.
	Medium *ImageFile `json:"medium,omitempty"`
	// Force takes a medium that the guest has in use.
	Force bool `json:"force,omitempty"`
}

// Method implements Command.
func (*SetMedium) Method() string { return "set_medium" }
