package cli

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

// asks gives the query of the last request, readable.
func (b *bench) asks(t *testing.T) string {
	t.Helper()
	all := b.requests()
	u, err := url.Parse(strings.Fields(all[len(all)-1])[1])
	if err != nil {
		t.Fatal(err)
	}
	q, err := url.QueryUnescape(u.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestListFlags(t *testing.T) {
	b := newBench(t)
	b.on("GET /vms", 200, api.List[api.VM]{})
	b.on("GET /jobs", 200, api.List[api.Job]{})
	b.on("GET /audit", 200, api.List[api.AuditRecord]{})
	for line, want := range map[string]string{
		"vm list":                                            "",
		"vm list --all --sort -cpus":                         "sort=-cpus",
		"vm list --state running,stopped":                    "state=running,stopped",
		"vm list --state running --state stopped --node a":   "node=a&state=running,stopped",
		"vm list --label tier=web --label env --name web-*":  "label=tier=web,env&name=web-*",
		"vm list --filter state=running --image debian":      "image=debian&state=running",
		"job list --state failed --kind vm.start,vm.stop":    "kind=vm.start,vm.stop&state=failed",
		"audit list --outcome denied --principal root --all": "outcome=denied&principal=root",
	} {
		b.do(t, line, 0)
		if got := b.asks(t); got != want {
			t.Errorf("%s asks for %q, want %q", line, got, want)
		}
	}
	if got := b.do(t, "vm list --state running --filter state=stopped", 2); !strings.Contains(got, "say the same") {
		t.Error(got)
	}
	b.do(t, "vm list --all --limit 5", 2)
}

// What is left out is said, and never left out of what a program reads.
func TestListsSayWhatIsMissing(t *testing.T) {
	b := newBench(t)
	var vms api.List[api.VM]
	var jobs api.List[api.Job]
	for i := range 600 {
		vms.Items = append(vms.Items, someVM(fmt.Sprint("vm-", i), "running"))
		jobs.Items = append(jobs.Items, someJob("succeeded"))
	}
	b.on("GET /vms", 200, vms)
	b.on("GET /jobs", 200, jobs)
	const head = 1
	for line, want := range map[string]int{
		"vm list": 600, "vm list --limit 3": 3, "vm list --all": 600, "job list": 50, "job list --limit 0": 600, "job list --all": 600,
	} {
		b.do(t, line, 0)
		if got := strings.Count(b.stdout.String(), "\n") - head; got != want {
			t.Errorf("%s shows %d, want %d", line, got, want)
		}
		if said := strings.Contains(b.stderr.String(), "there are more"); said != (want < 600) {
			t.Errorf("%s says %q", line, b.stderr.String())
		}
	}
}
