package store

import "github.com/novacron/novacron/internal/vocab/id"

// VMListSQL gives the statement behind VMList, to look at its plan.
func VMListSQL(p Page, project id.ID) (string, []any, error) {
	return vmsOf(vmList).build(p, project)
}
