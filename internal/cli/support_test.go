package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parts reads a bundle.
func parts(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out, r := map[string]string{}, tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(h.Name, "novacron-support/")] = string(b)
	}
}

// A bundle holds the cluster's documents, this machine's logs, and no secret that
// stood in either; what cannot be had is named.
func TestSupportBundle(t *testing.T) {
	b := newBench(t)
	sickCluster(b, b.app.clock.Now())
	logs := filepath.Join(b.vars["NOVACRON_DATA_DIR"], "logs")
	const canary = "nvc_" + "AbCdEf0123-_x"
	text := strings.Repeat("x", mostLog) + "\ntoken " + canary + " postgres://me:hunter2@db/novacron\n" +
		"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\nend\n"
	if err := errors.Join(os.MkdirAll(logs, 0o700), os.WriteFile(filepath.Join(logs, "server.log"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	out := b.args(t, 0, "support", "bundle", "--file", file)
	if !strings.Contains(out, "not in it: cluster/images.json") {
		t.Errorf("what is missing is not named: %s", out)
	}
	got := parts(t, file)
	for _, want := range []string{"version.txt", "doctor.json", "cluster/system.json", "cluster/nodes.json", "cluster/jobs.json", "host/proc/meminfo", "logs/server.log"} {
		if got[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
	if vms := got["cluster/vms.json"]; !strings.Contains(vms, `"hostname": "www"`) || !strings.Contains(vms, "[redacted: 30 bytes]") {
		t.Errorf("of VMs it says %s", vms)
	}
	log := got["logs/server.log"]
	if len(log) > mostLog || !strings.HasSuffix(log, "end\n") || !strings.Contains(log, "postgres://me:[redacted]@db/novacron") {
		t.Errorf("the log ends with %q", log[max(0, len(log)-200):])
	}
	for name, content := range got {
		for _, secret := range []string{canary, "hunter2", "MIGH", "password-of-a-guest"} {
			if strings.Contains(content, secret) {
				t.Errorf("%s holds a secret", name)
			}
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	b.args(t, 8, "support", "bundle", "--file", file) // never over another
}

func TestBlank(t *testing.T) {
	for in, want := range map[string]string{
		"a nvj_x1-_ b nvs_y": "a [redacted] b [redacted]", "postgres://u@h/d": "postgres://u@h/d",
		"http://h:80/p@q": "http://h:80/p@q", "u://:p@h": "u://:[redacted]@h", "plain": "plain",
	} {
		if got := blank([]byte(in)); !bytes.Equal(got, []byte(want)) {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
