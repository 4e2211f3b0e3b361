// Package auth decides who may do what: one function, deny by default.
package auth

import "github.com/novacron/novacron/internal/vocab/id"

// Role is a set of permissions. Projects, users and bindings refine it later;
// a role stays what a principal carries through the gate.
type Role string

// The roles.
const (
	Administrator Role = "administrator"
	Reader        Role = "reader"
	// Node is an agent's role: the node link, and nothing of the API.
	Node Role = "node"
	// Anonymous is whoever shows no credential.
	Anonymous Role = "anonymous"
)

// Action is what is done to a resource.
type Action string

// The actions.
const (
	Create  Action = "create"
	Read    Action = "read"
	Update  Action = "update"
	Delete  Action = "delete"
	Execute Action = "execute"
	Admin   Action = "admin"
	// Run is to run programs in a guest: more than to start and stop it.
	Run Action = "run"
)

// Resource is a type of object.
type Resource string

// The resource types of routes today.
const (
	VM      Resource = "vm"
	NodeRes Resource = "node"
	Storage Resource = "storage"
	System  Resource = "system"
	// Document is objects of any kind, declared together: its gate is for whoever may
	// change something, and what each may is decided object by object.
	Document Resource = "document"
	Public   Resource = "public" // health, the API document, setup: no credential asked
)

// Principal is who asks.
type Principal struct {
	// Name is what the audit log says: "root (local)", "token ci", …
	Name   string
	Role   Role
	Origin string
	// Token is the API token it showed; nil without one.
	Token *id.ID
}

// Need is what a route asks for.
type Need struct {
	Resource Resource
	Action   Action
}

// May tells whether the role may do what is needed.
func May(r Role, n Need) bool {
	if n.Resource == Public {
		return true
	}
	switch r {
	case Administrator:
		return true
	case Reader:
		return n.Action == Read
	case Node, Anonymous:
		return false
	}
	return false
}
