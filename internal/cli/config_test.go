package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func (b *bench) configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.vars[configEnv] = path
	return path
}

// A flag stands before the environment, that before the file, that before the
// default; and each value tells where it is from.
func TestConfigPrecedence(t *testing.T) {
	b := newBench(t)
	delete(b.vars, "NOVACRON_DATA_DIR")
	path := b.configFile(t, "server:\n  listen: 1.1.1.1:1\n  advertise: [a:1, 'b:2']\n  data_dir: /file\n  database: postgres://u:canary@h/d\n  log_level: debug\nagent:\n  share: 3\n")
	b.vars["NOVACRON_SERVER_LISTEN"] = "2.2.2.2:2"
	b.vars["NOVACRON_DATABASE_OWNER"] = "postgres://o:canary@h/d"
	var doc struct{ Items []setting }
	if err := json.Unmarshal([]byte(b.do(t, "config show server -o json", 0)), &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]setting{}
	for _, s := range doc.Items {
		got[s.Name] = s
	}
	for _, want := range []setting{
		{"listen", "2.2.2.2:2", "NOVACRON_SERVER_LISTEN"},
		{"advertise", "[a:1,b:2]", path},
		{"data-dir", "/file", path},
		{"log-level", "debug", path},
		{"database", "[redacted]", path},
		{"database-owner", "[redacted]", "NOVACRON_DATABASE_OWNER"},
		{"setup-token", "false", "default"},
	} {
		if got[want.Name] != want {
			t.Errorf("got %+v, want %+v", got[want.Name], want)
		}
	}
	if out := b.do(t, "config show server --origin", 0); strings.Contains(out, "canary") {
		t.Errorf("a password is shown: %s", out)
	}
	cmd := newServer(b.app)
	if err := cmd.ParseFlags([]string{"--listen", "3.3.3.3:3"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.app.resolve(cmd); err != nil || cmd.Flag("listen").Value.String() != "3.3.3.3:3" {
		t.Errorf("the flag is %s, %v", cmd.Flag("listen").Value, err)
	}
}

// The instance that the file names is the one that 'down' and the others mean.
func TestConfigNamesTheInstance(t *testing.T) {
	b := newBench(t)
	delete(b.vars, "NOVACRON_DATA_DIR")
	b.configFile(t, "up:\n  data_dir: /somewhere\n")
	if p, err := b.app.paths(""); err != nil || p.Data != "/somewhere" {
		t.Errorf("%+v %v", p, err)
	}
	b.vars["NOVACRON_DATA_DIR"] = "/elsewhere"
	if p, err := b.app.paths(""); err != nil || p.Data != "/elsewhere" {
		t.Errorf("%+v %v", p, err)
	}
}

// A file that is wrong starts nothing, and says where it is wrong.
func TestConfigRefusals(t *testing.T) {
	for text, want := range map[string]struct {
		code errs.Code
		says string
	}{
		"sever:\n  listen: x":               {errs.UnknownField, "did you mean"},
		"server:\n  lisen: x":               {errs.UnknownField, "did you mean \"listen\""},
		"server:\n  listen: {a: b}":         {errs.InvalidField, "server.listen, line 2"},
		"server:\n  listen: [[a]]":          {errs.InvalidField, "single values"},
		"server:\n  listen:":                {errs.InvalidField, "single value"},
		"server:\n  listen: a\n  listen: b": {errs.InvalidField, "section per command"},
		"- a":                               {errs.InvalidField, "section per command"},
		"server: {}\n---\nagent: {}":        {errs.InvalidField, "more than one document"},
		"server:\n  log_level: maybe":       {errs.InvalidField, "maybe"},
		"\x00":                              {errs.InvalidField, "section per command"},
	} {
		b := newBench(t)
		path := b.configFile(t, text)
		out := b.do(t, "server", 2)
		if !strings.Contains(out, want.says) || !strings.Contains(out, path) || !strings.Contains(out, "("+string(want.code)+")") {
			t.Errorf("%q: %s", text, out)
		}
	}
	b := newBench(t)
	b.vars[configEnv] = "/nonexistent/config.yaml"
	if out := b.do(t, "server", 8); !strings.Contains(out, "/nonexistent") {
		t.Error(out)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("up:\n  listen: a:1\n"))
	f.Add([]byte("agent:\n  server: [a, b]\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = parseConfig(raw) })
}

// What is set of the server's limits reaches the server that 'up' runs, and nothing
// else does.
func TestUpHandsLimitsOn(t *testing.T) {
	b := newBench(t)
	b.configFile(t, "up:\n  account_rate: 77\n")
	b.vars["NOVACRON_UP_MAX_STREAMS"] = "7"
	cmd := newUp(b.app)
	if err := cmd.ParseFlags([]string{"--node-rate", "5"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.app.resolve(cmd); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(limitArgs(cmd), " "); got != "--account-rate=77 --max-streams=7 --node-rate=5" {
		t.Errorf("handed on: %s", got)
	}
}
