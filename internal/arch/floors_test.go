package arch

import (
	"errors"
	"fmt"
	"go/ast"
	"path"
	"strings"
	"testing"
)

// floor is a height in the house. Imports go strictly downward, or stay within
// the same part.
type floor int

const (
	floorAPI floor = iota
	floorVocab
	floorDomain
	floorContract // engine, driver contracts, nodelink
	floorHelper   // what the drivers of one family share
	floorSuite    // conformance suites of the contracts
	floorDriver   // drivers, store
	floorControl  // control, agent
	floorServer   // server, client, ui
	floorCLI
	floorMain
	floorTop // tests of the whole
)

// floors is the table: the longest folder that fits says where a package
// stands. Packages below one row are one part and may import each other.
var floors = map[string]floor{
	"api":                                  floorAPI,
	"internal/vocab":                       floorVocab,
	"internal/domain":                      floorDomain,
	"internal/engine":                      floorContract,
	"internal/nodelink":                    floorContract,
	"internal/driver":                      floorContract, // the contracts, and helpers of all families
	"internal/driver/hypervisor/outbox":    floorHelper,
	"internal/driver/hypervisor/serial":    floorHelper,
	"internal/driver/hypervisor/qmp":       floorHelper,
	"internal/driver/hypervisor/keeper":    floorHelper,
	"internal/driver/hypervisor/process":   floorHelper,
	"internal/driver/hypervisor/cgroup":    floorHelper,
	"internal/driver/hypervisor/uids":      floorHelper,
	"internal/driver/hypervisor/turn":      floorHelper,
	"internal/driver/hypervisor/rfb":       floorHelper,
	"internal/driver/hypervisor/tap":       floorHelper,
	"internal/driver/hypervisor/qga":       floorHelper,
	"internal/driver/hypervisor/hypertest": floorSuite,
	"internal/driver/volume/pool":          floorHelper,
	"internal/driver/volume/voltest":       floorSuite,
	"internal/driver/network/nettest":      floorSuite,
	"internal/store":                       floorDriver,
	"internal/control":                     floorControl,
	"internal/agent":                       floorControl,
	"internal/server":                      floorServer,
	"client":                               floorServer,
	"ui":                                   floorServer,
	"internal/cli":                         floorCLI,
	"cmd":                                  floorMain,
	"internal/arch":                        floorTop,
	"internal/control/controltest":         floorTop, // a cluster in one process, for tests alone
	"e2e":                                  floorTop,
}

// families are the folders whose every other folder is one driver.
var families = []string{"internal/driver/hypervisor", "internal/driver/volume", "internal/driver/network"}

// place is where a package stands.
type place struct {
	part   string
	floor  floor
	driver bool
}

func placeOf(folder string) (place, bool) {
	if p, ok := driverPlace(folder); ok {
		return p, true
	}
	for part := folder; part != "."; part = path.Dir(part) {
		if height, ok := floors[part]; ok {
			return place{part: part, floor: height}, true
		}
	}
	return place{}, false
}

// driverPlace finds internal/driver/<family>/<driver>/..., where a driver is
// everything but the contract and what the table names.
func driverPlace(folder string) (place, bool) {
	for _, family := range families {
		rest, ok := strings.CutPrefix(folder, family+"/")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, "/")
		part := family + "/" + name
		if _, named := floors[part]; named || name == "contract" {
			return place{}, false
		}
		return place{part: part, floor: floorDriver, driver: true}, true
	}
	return place{}, false
}

// checkImport judges one import inside the repository. Tests may also reach
// sideways, and use any helper package whose name ends in "test".
func checkImport(from, to string, test bool) error {
	here, ok := placeOf(from)
	if !ok {
		return fmt.Errorf("%s stands on no floor: add it to the table in internal/arch/floors_test.go", from)
	}
	there, ok := placeOf(to)
	if !ok {
		return fmt.Errorf("%s stands on no floor: add it to the table in internal/arch/floors_test.go", to)
	}
	switch {
	case here.part == there.part:
		return nil
	case test:
		return checkTestImport(here, there, to)
	default:
		return checkProductImport(here, there)
	}
}

func checkTestImport(here, there place, to string) error {
	if there.floor <= here.floor || strings.HasSuffix(to, "test") {
		return nil
	}
	return fmt.Errorf("a test of %s may not reach up to %s: test it there, or in e2e", here.part, there.part)
}

func checkProductImport(here, there place) error {
	switch {
	case here.floor == floorHelper && there.floor == floorHelper:
		return nil // what drivers share is one kit; the compiler refuses circles
	case here.driver && there.driver:
		return errors.New("drivers never import each other: move what they share to a folder beside them, and name it in the table")
	case here.part == "internal/control" && there.driver:
		return errors.New("control never imports a driver: they meet in nodelink")
	case here.part == "internal/agent" && there.part == "internal/store":
		return errors.New("agent never imports store: they meet in nodelink")
	case here.part == "client" && there.part != "api":
		return errors.New("client imports api only: users import it without our internals")
	case here.part == "internal/domain" && there.part != "internal/vocab":
		return errors.New("domain imports the standard library and vocab only")
	case there.floor >= here.floor:
		return fmt.Errorf("imports go downward only: %s is not below %s", there.part, here.part)
	default:
		return nil
	}
}

// standard says whether an import path is of the standard library.
func standard(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

// deaf lists what domain packages may not know of, even though it is standard.
var deaf = []string{"net/http", "database", "encoding/json", "log", "os", "net"}

// checkForeign judges one import from outside the repository, in product code.
func checkForeign(from, to string) error {
	switch {
	case within(from, "api") && !standard(to):
		return errors.New("api imports the standard library only")
	case within(from, "client") && !standard(to) && to != "github.com/coder/websocket":
		return errors.New("client imports api, the standard library and the websocket library only")
	case within(from, "internal/domain") && !standard(to):
		return errors.New("domain imports the standard library and vocab only")
	case within(from, "internal/domain"):
		return checkDeaf(to)
	default:
		return nil
	}
}

func checkDeaf(to string) error {
	for _, word := range deaf {
		if within(to, word) && to != "net/netip" {
			return fmt.Errorf("domain decides and does no I/O, so it does not import %s: do that on the floor above", to)
		}
	}
	return nil
}

func TestImportsGoDownward(t *testing.T) {
	for _, f := range repository(t) {
		for _, imported := range f.imports() {
			if err := checkFileImport(f, imported); err != nil {
				t.Errorf("%s imports %s: %v", f.path, imported, err)
			}
		}
	}
}

func checkFileImport(f *file, imported string) error {
	if inside, ok := strings.CutPrefix(imported, module+"/"); ok {
		return checkImport(f.folder(), inside, f.isTest())
	}
	if f.isTest() {
		return nil
	}
	return checkForeign(f.folder(), imported)
}

func TestDomainIsDeaf(t *testing.T) {
	for _, f := range repository(t) {
		if !f.under("internal/domain") || f.isTest() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: domain starts no goroutine: decide here, act on the floor above", f.at(n))
			case *ast.Field:
				if n.Tag != nil {
					t.Errorf("%s: domain types carry no tags: convert on the floor that needs them", f.at(n))
				}
			}
			return true
		})
	}
}

func TestMainIsShort(t *testing.T) {
	for _, f := range repository(t) {
		if f.path == "cmd/novacron/main.go" && f.lines >= 80 {
			t.Errorf("%s has %d lines, the limit is 79: the wiring belongs to internal/cli", f.path, f.lines)
		}
	}
}

func TestFloorRules(t *testing.T) {
	cases := []struct {
		from, to string
		test, ok bool
	}{
		{from: "internal/domain/vm", to: "internal/vocab/id", ok: true},
		{from: "internal/domain/scheduler", to: "internal/domain/vm", ok: true},
		{from: "internal/domain/vm", to: "internal/store"},
		{from: "internal/domain/vm", to: "api"},
		{from: "internal/vocab/id", to: "internal/domain/vm"},
		{from: "internal/control", to: "internal/store", ok: true},
		{from: "internal/control/flows", to: "internal/driver/hypervisor/sim"},
		{from: "internal/control/flows", to: "internal/driver/hypervisor/sim", test: true, ok: true},
		{from: "internal/control", to: "internal/driver/hypervisor/contract", ok: true},
		{from: "internal/control", to: "internal/agent"},
		{from: "internal/agent", to: "internal/store"},
		{from: "internal/agent", to: "internal/driver/hypervisor/qemu", ok: true},
		{from: "internal/driver/hypervisor/qemu", to: "internal/driver/hypervisor/sim"},
		{from: "internal/driver/hypervisor/qemu", to: "internal/driver/volume/dir"},
		{from: "internal/driver/hypervisor/qemu", to: "internal/driver/hypervisor/qemu/qmp", ok: true},
		{from: "internal/driver/hypervisor/qemu", to: "internal/driver/hypervisor/contract", ok: true},
		{from: "internal/driver/hypervisor/qemu", to: "internal/driver/hypervisor/serial", ok: true},
		{from: "internal/driver/hypervisor/serial", to: "internal/driver/hypervisor/qemu"},
		{from: "internal/driver/volume/contract", to: "internal/driver/hypervisor/contract", ok: true},
		{from: "internal/driver/hypervisor/hypertest", to: "internal/driver/hypervisor/contract", ok: true},
		{from: "internal/driver/hypervisor/contract", to: "internal/driver/hypervisor/hypertest"},
		{from: "internal/engine/lease", to: "internal/store"},
		{from: "internal/engine/lease", to: "internal/store/storetest", test: true, ok: true},
		{from: "internal/engine/lease", to: "internal/store", test: true},
		{from: "internal/server", to: "internal/cli"},
		{from: "internal/cli", to: "client", ok: true},
		{from: "client", to: "internal/vocab/id"},
		{from: "internal/unheard", to: "internal/vocab/id"},
	}
	for _, c := range cases {
		if err := checkImport(c.from, c.to, c.test); (err == nil) != c.ok {
			t.Errorf("%s imports %s (test %v): got %v, want ok %v", c.from, c.to, c.test, err, c.ok)
		}
	}
}

func TestForeignRules(t *testing.T) {
	cases := []struct {
		from, to string
		ok       bool
	}{
		{"api", "encoding/json", true},
		{"api", "github.com/google/uuid", false},
		{"client", "github.com/coder/websocket", true},
		{"client", "github.com/google/uuid", false},
		{"internal/domain/vm", "net/netip", true},
		{"internal/domain/vm", "net/http", false},
		{"internal/domain/vm", "log/slog", false},
		{"internal/domain/vm", "database/sql", false},
		{"internal/store", "github.com/jackc/pgx/v5", true},
	}
	for _, c := range cases {
		if err := checkForeign(c.from, c.to); (err == nil) != c.ok {
			t.Errorf("%s imports %s: got %v, want ok %v", c.from, c.to, err, c.ok)
		}
	}
}
