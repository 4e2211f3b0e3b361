package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/novacron/novacron/api"
)

const aKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdknWA/03xYijRJZiT6xCgj8eR7UpZUF2N+5Su5PhYl me@host"

// files writes files of the home folder of the command line.
func (b *bench) files(t *testing.T, files map[string]string) (home string) {
	t.Helper()
	home = t.TempDir()
	b.vars["HOME"] = home
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// What cloud-init is told comes from flags, files and standard input.
func TestVMCreateCloudInit(t *testing.T) {
	b := newBench(t)
	home := b.files(t, map[string]string{
		"keys.pub": "# mine\n" + aKey + "\n\n" + aKey + "2\n", "user": "#cloud-config\nruncmd: [id]\n", "private": "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n",
	})
	b.on("POST /vms", 202, api.Accepted{})
	b.in = strings.NewReader("version: 2\n")
	b.args(t, 0, "vm", "create", "web", "--image", "tiny", "--hostname", "www", "--ssh-key", home+"/keys.pub", "--ssh-key", aKey, "--user-data", "@~/user", "--network-config", "@-", "--meta-data", "a: b")
	expect(t, b.requests()[0], `POST /api/v1/vms {"name":"web","cpus":1,"memory_bytes":536870912,"image":"tiny","cloud_init":{"hostname":"www","ssh_authorized_keys":["`+
		aKey+`","`+aKey+`2","`+aKey+`"],"user_data":"#cloud-config\nruncmd: [id]\n","network_config":"version: 2\n","meta_data":"a: b"}}`)
	b.args(t, 0, "vm", "create", "web", "--image", "tiny")
	expect(t, b.requests()[1], `POST /api/v1/vms {"name":"web","cpus":1,"memory_bytes":536870912,"image":"tiny"}`)
	for _, bad := range [][]string{{"--ssh-key", home + "/private"}, {"--ssh-key", home + "/none"}, {"--ssh-key", "no-pty " + aKey}, {"--user-data", "@" + home + "/none"}, {"--user-data", "@"}} {
		got := b.args(t, 2, append([]string{"vm", "create", "web", "--image", "tiny"}, bad...)...)
		if !strings.Contains(got, bad[0]) {
			t.Errorf("%v: %s", bad, got)
		}
	}
	if n := len(b.requests()); n != 2 {
		t.Errorf("%d requests: what is not understood was sent", n)
	}
}

// What is not named stays; keys are replaced all together; none takes all away.
func TestVMSetCloudInit(t *testing.T) {
	b := newBench(t)
	is := someVM("web", "stopped")
	is.Spec.CloudInit = &api.VMCloudInit{Hostname: "www", SSHAuthorizedKeys: []string{aKey}, UserData: "#!/bin/sh\necho \x1b[31m\n"}
	b.on("GET /vms/web", 200, is)
	b.on("PATCH /vms/id-web", 200, is)
	b.args(t, 0, "vm", "set", "web", "--user-data", "#!/bin/true")
	expect(t, b.requests()[1], `PATCH /api/v1/vms/id-web {"cloud_init":{"hostname":"www","ssh_authorized_keys":["`+aKey+`"],"user_data":"#!/bin/true"}}`)
	b.args(t, 0, "vm", "set", "web", "--no-cloud-init", "--hostname", "a.b")
	expect(t, b.requests()[3], `PATCH /api/v1/vms/id-web {"cloud_init":{"hostname":"a.b"}}`)
	b.args(t, 0, "vm", "set", "web", "--no-cloud-init")
	expect(t, b.requests()[5], `PATCH /api/v1/vms/id-web {"cloud_init":{}}`)
	b.args(t, 0, "vm", "set", "web", "--no-cloud-init", "--seed", "cd")
	expect(t, b.requests()[7], `PATCH /api/v1/vms/id-web {"cloud_init":{},"seed_image":"cd"}`)
	b.args(t, 0, "vm", "set", "web", "--seed", "")
	expect(t, b.requests()[9], `PATCH /api/v1/vms/id-web {"seed_image":""}`)
	got := b.args(t, 0, "vm", "show", "web")
	for _, want := range []string{"hostname:", "www", "ssh-ed25519 SHA256:", "me@host", "#!/bin/sh …"} {
		if !strings.Contains(got, want) {
			t.Errorf("shown without %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Errorf("a control character of others is shown: %q", got)
	}
}
