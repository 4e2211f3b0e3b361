package cgroup

import "strings"

// mount is one mounted hierarchy.
type mount struct {
	path        string
	v2          bool
	controllers []string
}

// parseMounts reads /proc/self/mountinfo (proc(5)): fields up to a lone dash, then
// type, source and the options of the file system, which name v1 controllers.
func parseMounts(text string) []mount {
	var out []mount
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		m := mount{path: unescape.Replace(f[4])}
		switch g[0] {
		case "cgroup2":
			m.v2 = true
		case "cgroup":
			m.controllers = strings.Split(g[2], ",")
		default:
			continue
		}
		out = append(out, m)
	}
	return out
}

// unescape undoes how mountinfo writes the characters that separate its fields.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
