package workflow

// Ending tells how many jobs wait to end together.
func (e *Executor) Ending() int {
	e.ends.mu.Lock()
	defer e.ends.mu.Unlock()
	return len(e.ends.waiting)
}
