package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/qmp"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// byHand is QEMU as somebody drives it who knows it well, with TLS of its own.
type byHand struct {
	f      *field
	name   string
	memory int64
	guest  *guest
	keys   string
	// channels for memory; 0 for one stream without channels.
	channels int
	// halted: the guest is halted before its memory is sent, as long as that takes. An
	// emulated guest that goes on loses writes by some versions of QEMU.
	halted bool
	at     *handQEMU
	starts int
}

// handQEMU is one process.
type handQEMU struct {
	control *qmp.Client
	cmd     *exec.Cmd
	ram     string
}

type object = map[string]any

// openByHand starts a guest, and does not wait for it.
func openByHand(b *testing.B, f *field, name string, memory int64, g *guest) *byHand {
	b.Helper()
	h := &byHand{f: f, name: name, memory: memory, guest: g, keys: filepath.Join(f.dir, name+"-keys"), channels: 2, halted: true}
	writeKeys(b, h.keys)
	for k := range 2 {
		f.addTap(h.tap(k), 0)
	}
	h.at = h.start(b)
	b.Cleanup(func() { h.at.end() })
	return h
}

func (h *byHand) tap(k int) string { return fmt.Sprintf("%s-%s%d", h.f.bridge[3:], h.name, k%2) }

// start starts QEMU with the devices that the guest needs, and no others.
func (h *byHand) start(b *testing.B, more ...string) *handQEMU {
	b.Helper()
	h.starts++
	name := fmt.Sprintf("%s%d", h.name, h.starts%2)
	path := filepath.Join(h.f.dir, name+".qmp")
	q := &handQEMU{ram: "/dev/shm/" + filepath.Base(h.f.dir) + "-" + name}
	tls := func(end string) string {
		return `{"qom-type":"tls-creds-x509","id":"` + end + `","endpoint":"` + end + `","dir":"` + h.keys + `","verify-peer":true,` +
			`"priority":"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM"}`
	}
	q.cmd = exec.Command("qemu-system-x86_64", append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-smp", "1",
		"-machine", "q35,memory-backend=ram,usb=off,vmport=off", "-accel", "tcg,tb-size=256", "-cpu", "Westmere-v1",
		"-object", fmt.Sprintf("memory-backend-file,id=ram,mem-path=%s,size=%d,share=on", q.ram, h.memory),
		"-object", tls("client"), "-object", tls("server"),
		"-netdev", "tap,id=net,script=no,downscript=no,ifname=" + h.tap(h.starts), "-device", "virtio-net-pci,netdev=net,romfile=,mac=" + h.guest.mac,
		"-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-chardev", "null,id=s", "-device", "isa-serial,chardev=s",
		"-qmp", "unix:" + path + ",server=on,wait=off",
		"-kernel", h.f.kernel, "-initrd", h.f.initrd, "-append", h.guest.cmdline,
	}, more...)...)
	q.cmd.Stderr = os.Stderr
	_ = os.Remove(path)
	if err := q.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for {
		var err error
		if q.control, err = qmp.Dial(ctx, path, qmp.Options{}); err == nil {
			return q
		}
		if (clock.System{}).Sleep(ctx, 5*time.Millisecond) != nil {
			b.Fatalf("QEMU does not listen: %v", err)
		}
	}
}

func (q *handQEMU) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if q.control.Execute(ctx, "quit", nil, nil) != nil {
		_ = q.cmd.Process.Kill()
	}
	_ = q.cmd.Wait()
	_ = q.control.Close()
	_ = os.Remove(q.ram)
}

func (q *handQEMU) tell(b *testing.B, command string, args, out any) {
	b.Helper()
	if err := q.control.Execute(b.Context(), command, args, out); err != nil {
		b.Fatal(err)
	}
}

// prepare tells one end how memory travels.
func (h *byHand) prepare(b *testing.B, q *handQEMU, end string) {
	b.Helper()
	q.tell(b, "migrate-set-capabilities", object{"capabilities": []object{
		{"capability": "return-path", "state": true}, {"capability": "multifd", "state": h.channels > 0},
	}}, nil)
	q.tell(b, "migrate-set-parameters", object{
		"max-bandwidth": 16 * unit.GiB, "multifd-channels": max(h.channels, 1), "tls-creds": end, "tls-hostname": "localhost",
	}, nil)
}

func (h *byHand) move(b *testing.B) moved {
	b.Helper()
	h.guest.goesOn(b, 3)
	from := h.at
	begin := clock.System{}.Boot()
	to := h.start(b, "-incoming", "defer")
	h.prepare(b, to, "server")
	h.prepare(b, from, "client")
	to.tell(b, "migrate-incoming", object{"uri": "tcp:127.0.0.1:0"}, nil)
	var listens struct {
		Address []struct {
			Port string `json:"port"`
		} `json:"socket-address"`
	}
	to.tell(b, "query-migrate", nil, &listens)
	if len(listens.Address) == 0 {
		b.Fatal("QEMU does not tell where it listens")
	}
	h.guest.forget()
	sent := clock.System{}.Boot()
	if h.halted {
		from.tell(b, "stop", nil, nil)
	}
	from.tell(b, "migrate", object{"uri": "tcp:127.0.0.1:" + listens.Address[0].Port}, nil)
	from.completes(b)
	out := moved{memory: clock.System{}.Boot() - sent}
	if h.halted {
		to.tell(b, "cont", nil, nil)
	}
	h.at = to
	from.end()
	out.whole = clock.System{}.Boot() - begin
	out.silence = h.guest.goesOn(b, 3)
	return out
}

// completes waits until a move from here is over.
func (q *handQEMU) completes(b *testing.B) {
	b.Helper()
	for {
		var is struct {
			Status string `json:"status"`
			Desc   string `json:"error-desc"`
		}
		q.tell(b, "query-migrate", nil, &is)
		switch is.Status {
		case "completed":
			return
		case "failed", "cancelled":
			b.Fatalf("the move by hand is %s: %s", is.Status, is.Desc)
		}
		if err := (clock.System{}).Sleep(b.Context(), time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
}

// writeKeys writes an authority, and a certificate for either end, as QEMU wants to find
// them.
func writeKeys(b *testing.B, dir string) {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o700))
	write := func(name, kind string, der []byte) {
		must(os.WriteFile(filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	valid := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, BasicConstraintsValid: true,
			NotBefore: clock.System{}.Now().Add(-time.Hour), NotAfter: clock.System{}.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		}
	}
	root := valid(1, "authority")
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.CreateCertificate(rand.Reader, root, root, signer.Public(), signer)
	must(err)
	write("ca-cert", "CERTIFICATE", der)
	for k, end := range []string{"server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		leaf := valid(int64(2+k), end)
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), signer)
		must(err)
		write(end+"-cert", "CERTIFICATE", der)
		der, err = x509.MarshalPKCS8PrivateKey(key)
		must(err)
		write(end+"-key", "PRIVATE KEY", der)
	}
}
