package nodelink

// Suspend saves the guest's memory on the node's disk and ends its process. From
// here on the node's own record says that the VM should not run. What fails leaves
// the guest as it was.
type Suspend struct{ Header }

// Method implements Command.
func (*Suspend) Method() string { return "suspend" }

// Look reports how the VM is once no other command acts on it.
type Look struct{ Header }

// Method implements Command.
func (*Look) Method() string { return "look" }
