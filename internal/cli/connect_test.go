package cli

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/cli/local"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func TestWhichServer(t *testing.T) {
	b := newBench(t)
	ofContext := contextFile{Name: "office", Addresses: []string{"office:1"}, Fingerprint: "f", Token: "t"}
	cases := []struct {
		name  string
		flags globals
		env   map[string]string
		saved contexts
		want  client.Config
		code  errs.Code
	}{
		{name: "a socket", flags: globals{socket: "/s"}, env: map[string]string{"NOVACRON_SOCKET": "/e"}, want: client.Config{Socket: "/s"}},
		{
			name: "an address", flags: globals{address: "a:1,b:2"}, env: map[string]string{"NOVACRON_TOKEN": "t", "NOVACRON_FINGERPRINT": "f"},
			want: client.Config{Addresses: []string{"a:1", "b:2"}, Token: "t", Fingerprint: "f"},
		},
		{
			name: "a context", flags: globals{context: "office"}, env: map[string]string{"NOVACRON_ADDRESS": "e:1"},
			saved: contexts{Contexts: []contextFile{ofContext}}, want: ofContext.config(),
		},
		{name: "a context that is not there", flags: globals{context: "nowhere"}, code: errs.NotFound},
		{name: "the environment", env: map[string]string{"NOVACRON_ADDRESS": "e:1"}, saved: contexts{Current: "office", Contexts: []contextFile{ofContext}}, want: client.Config{Addresses: []string{"e:1"}}},
		{name: "the current context", saved: contexts{Current: "office", Contexts: []contextFile{ofContext}}, want: ofContext.config()},
		{name: "nothing", code: errs.NodeUnreachable},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			home := t.TempDir()
			b.vars = map[string]string{"HOME": home, "NOVACRON_DATA_DIR": filepath.Join(home, "data")}
			if err := b.saveContexts(tc.saved); err != nil {
				t.Fatal(err)
			}
			maps.Copy(b.vars, tc.env)
			root := newRoot(b.app) // sets the flags to what they are by default
			b.flags = tc.flags
			got, err := b.config(root)
			if errs.CodeOf(err) != tc.code {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheMachinesOwnInstance(t *testing.T) {
	b := newBench(t)
	delete(b.vars, "NOVACRON_SOCKET")
	socket := local.Sockets(os.Getuid(), b.env)[0]
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(filepath.Dir(socket))) })
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.flags = globals{}
	got, err := b.config(newRoot(b.app))
	if err != nil || got.Socket != socket {
		t.Errorf("got %+v, %v, want %s", got, err, socket)
	}
}

func TestContexts(t *testing.T) {
	b := newBench(t)
	b.on("GET /system", 200, api.System{})
	b.on("POST /setup", 201, api.Token{Token: "nvc_first"})
	socket := b.vars["NOVACRON_SOCKET"]
	b.do(t, "context add one --socket "+socket, 0)
	b.in = strings.NewReader("nvs_once\n")
	b.do(t, "context add two --setup-token - --socket "+socket, 0)
	path := filepath.Join(b.vars["HOME"], ".config", "novacron", "contexts.yaml")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file with tokens: %v, %v", info.Mode(), err)
	}
	raw, _ := os.ReadFile(path)
	if !strings.Contains(string(raw), "nvc_first") {
		t.Errorf("the token is not kept:\n%s", raw)
	}
	if got := b.do(t, "context list -o wide", 0); !strings.Contains(got, "two    yes") || strings.Contains(got, "nvc_first") {
		t.Error(got)
	}
	if got := b.do(t, "context list -o json", 0); strings.Contains(got, "nvc_first") {
		t.Errorf("a list shows tokens: %s", got)
	}
	b.do(t, "context use one", 0)
	b.do(t, "context use three", 3)
	if got := b.do(t, "context list", 0); !strings.Contains(got, "one    yes") {
		t.Error(got)
	}
	// a server that does not answer as it should is not remembered
	b.do(t, "context add bad --socket /nowhere", 6)
	if got := b.do(t, "context list", 0); strings.Contains(got, "bad") {
		t.Error(got)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.do(t, "context list", 2)
}
