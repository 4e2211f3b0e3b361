package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/novacron/novacron/api"
)

// debianTakes is how long a full guest may take to boot and be set up: software
// emulation on two busy cores is slow.
const debianTakes = 10 * time.Minute

// debianGuest makes the full guest; a test that nobody asked for is skipped, one
// that was asked for and cannot run fails.
func debianGuest(t *testing.T) (dir string) {
	t.Helper()
	if os.Getenv("NOVACRON_E2E_DEBIAN") == "" {
		t.Skip("takes minutes: make debian-test")
	}
	if os.Geteuid() != 0 {
		t.Fatal("making the guest needs root")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Fatal("debootstrap is not installed: run scripts/setup as root")
	}
	out, err := exec.Command("./debian-guest").CombinedOutput()
	if err != nil {
		t.Fatalf("debian-guest: %v\n%s", err, out)
	}
	if len(out) > 0 {
		t.Logf("%s", out)
	}
	return "../.cache/debian-guest/"
}

// newKey makes a key, and the line that opens an account to it.
func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + " test@e2e"
}

// dial logs into the guest by SSH.
func dial(port string, key ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", "127.0.0.1:"+port, &ssh.ClientConfig{
		User: "debian", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, Timeout: 20 * time.Second,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // a guest of a minute, on this machine
	})
}

// over runs a command in the guest by SSH; false while the guest cannot be
// reached.
func over(port string, key ssh.Signer, command string) (string, bool) {
	c, err := dial(port, key)
	if err != nil {
		return err.Error(), false
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		return err.Error(), false
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	var exit *ssh.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), false
	}
	return string(out), true
}

func freePort(t *testing.T) string {
	t.Helper()
	_, port, _ := strings.Cut(freeAddress(t), ":")
	return port
}

// What the guest is told. Each instance adds a line to /var/lib/runs, which its
// disk keeps, and says on the serial console how many there are.
const (
	debianUserData = `#cloud-config
write_files:
  - path: /etc/from-cloud-init
    content: |
      first line: 'of two'
      second line
runcmd:
  - echo run >>/var/lib/runs
  - [sh, -c, 'echo "NOVACRON-RUN $(hostname) $(wc -l </var/lib/runs)" >/dev/ttyS0']
`
	// The address that ports are forwarded to, and one that no DHCP server gives.
	debianNetwork = `version: 2
ethernets:
  eth0:
    addresses: [10.0.2.15/24, 10.0.2.77/24]
`
)

// A full Debian, made of Debian's packages: systemd, cloud-init and qemu-guest-agent
// as they come. It is set up as it was told, its agent answers, it obeys a graceful
// stop, is not set up again when it starts again, and its clone is.
func TestDebianGuest(t *testing.T) {
	dir := debianGuest(t)
	began := time.Now()
	said := func(what string) { t.Logf("%3.0f s: %s", time.Since(began).Seconds(), what) }
	i := up(t, "--accel", "tcg")
	i.patience = debianTakes
	i.must("image", "import", "boot", "--kernel", dir+"vmlinuz", "--initrd", dir+"initrd.img", "--cmdline", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet")
	i.must("image", "import", "debian", "--disk", dir+"root.qcow2")
	said("imported")
	key, line := newKey(t)
	port := freePort(t)
	i.must("vm", "create", "web-1", "--image", "boot", "--disk", ":debian", "--cpus", "1", "--memory", "512MiB", "--forward", "tcp:"+port+":22",
		"--hostname", "www.example.org", "--ssh-key", line, "--user-data", debianUserData, "--network-config", debianNetwork, "--start", "--wait")
	said("started")
	i.logged("web-1", "NOVACRON-RUN www 1\r\n")
	i.logged("web-1", "Datasource DataSourceNoCloud [seed=/dev/sr0]")
	said("set up")

	v := i.appears("web-1", "running")
	var got string
	i.eventually("SSH with the key that cloud-init was told", func() (bool, string) {
		var ok bool
		got, ok = over(port, key, "cloud-init status --wait; hostname; cat /etc/from-cloud-init; ip -4 -o addr show dev eth0; readlink /var/lib/cloud/instance; cat ~/.ssh/authorized_keys; systemctl --failed --no-legend; systemd-analyze")
		return ok, got
	})
	for _, want := range []string{"status: done\n", "\nwww\n", "first line: 'of two'\nsecond line\n", "10.0.2.15/24", "10.0.2.77/24", "/instances/" + v.ID + "\n", line} {
		if !strings.Contains(got, want) {
			t.Errorf("the guest says, without %q:\n%s", want, got)
		}
	}
	said("looked at:\n" + got)
	i.agentWorks("web-1", port, key)
	said("its agent works")

	i.must("vm", "stop", "web-1", "--grace", fmt.Sprint(debianTakes.Seconds()), "--wait")
	said("stopped")
	if v = i.appears("web-1", "stopped"); v.Status.Reason != "guest shut down on request" {
		t.Errorf("it stopped as %+v", v.Status)
	}
	i.must("vm", "clone", "web-1", "web-2", "--wait")
	i.must("vm", "start", "web-1", "web-2", "--wait")
	i.logged("web-2", "NOVACRON-RUN web-2 2\r\n")
	said("the clone is set up")
	i.eventually("the second boot", func() (bool, string) {
		var ok bool
		got, ok = over(port, key, "cloud-init status --wait; hostname; wc -l </var/lib/runs; readlink /var/lib/cloud/instance")
		return ok, got
	})
	if want := "status: done\nwww\n1\n/var/lib/cloud/instances/" + v.ID + "\n"; !strings.HasSuffix(got, want) {
		t.Errorf("after another start the guest says %q, want %q", got, want)
	}
	said("the second boot is over")
	i.agentAnswers("web-1", "10.0.2.15", "10.0.2.77")
	i.agentAnswers("web-2")
	said("both agents answer")
	i.must("vm", "stop", "web-1", "web-2", "--grace", fmt.Sprint(debianTakes.Seconds()), "--wait")
	for _, name := range []string{"web-1", "web-2"} {
		if v := get[api.VM](i, "vm", "show", name); v.Status.State != "stopped" || v.Status.Reason != "guest shut down on request" {
			t.Errorf("%s stopped as %+v", name, v.Status)
		}
	}
	said("both stopped")
	i.must("vm", "delete", "web-1", "web-2", "--wait", "--yes")
	i.must("image", "delete", "boot", "--wait")
	i.must("image", "delete", "debian", "--wait")
	i.nothingLeft()
}
