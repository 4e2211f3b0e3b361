package controltest

import (
	"os"
	"path/filepath"

	"github.com/novacron/novacron/internal/vocab/id"
)

func (n *Node) variables(v id.ID) string {
	return filepath.Join(n.dir, "firmware", v.String()+".uefi")
}

// firmware lists the files of all VMs' variables.
func (n *Node) firmware() []string {
	kept, _ := filepath.Glob(filepath.Join(n.dir, "firmware", "*"))
	return kept
}

// Variables gives what the UEFI firmware of a VM keeps on the node; empty for nothing.
func (n *Node) Variables(v id.ID) string {
	b, _ := os.ReadFile(n.variables(v))
	return string(b)
}

// SetVariables writes them as a guest would.
func (n *Node) SetVariables(v id.ID, text string) error {
	return os.WriteFile(n.variables(v), []byte(text), 0o600)
}

// LoseVariables removes them, as a disk that is replaced does.
func (n *Node) LoseVariables(v id.ID) error { return os.Remove(n.variables(v)) }
