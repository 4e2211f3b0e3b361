package client_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/client"
)

// The environment names the cluster with the words of the command line.
func TestFromEnv(t *testing.T) {
	for _, name := range []string{"NOVACRON_SOCKET", "NOVACRON_ADDRESS", "NOVACRON_FINGERPRINT", "NOVACRON_TOKEN"} {
		t.Setenv(name, "")
	}
	if _, err := client.FromEnv(); client.CodeOf(err) != client.CodeInvalidConfig || !strings.Contains(err.Error(), "NOVACRON_ADDRESS") {
		t.Errorf("an environment that names nothing: %v", err)
	}
	t.Setenv("NOVACRON_ADDRESS", "127.0.0.1:1,127.0.0.1:2")
	t.Setenv("NOVACRON_FINGERPRINT", "4F")
	if _, err := client.FromEnv(); client.CodeOf(err) != client.CodeInvalidConfig {
		t.Errorf("half a fingerprint: %v", err)
	}
	asked := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"cluster":"` + r.Header.Get("Authorization") + `"}`))
	}))
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = asked.Listener.Close()
	asked.Listener = l
	asked.Start()
	defer asked.Close()
	t.Setenv("NOVACRON_SOCKET", socket)
	t.Setenv("NOVACRON_TOKEN", "nvt_x")
	c, err := client.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if system, err := c.System(t.Context()); err != nil || system.Cluster != "" {
		t.Errorf("over the socket, where no token is needed: %+v %v", system, err)
	}
}
