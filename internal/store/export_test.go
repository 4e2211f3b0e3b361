package store

import "github.com/novacron/novacron/internal/vocab/id"

// VMListSQL gives the statement behind VMList, to look at its plan.
func VMListSQL(p Page, project id.ID) (string, []any, error) {
	l := vmList
	l.where = []string{"v.project_id = $1"}
	return l.build(p, project)
}
