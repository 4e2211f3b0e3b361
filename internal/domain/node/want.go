package node

// Want is what an operator declares of a node. Nil fields are not declared.
type Want struct {
	// Schedulable: is it given new VMs?
	Schedulable *bool
	Shutdown    *ShutdownPolicy
}

// State gives the state a node is to have.
func (w Want) State(n Node) State {
	switch {
	case w.Schedulable == nil:
		return n.State
	case *w.Schedulable:
		return Active
	default:
		return Cordoned
	}
}
