package sshkey

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

const (
	ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdknWA/03xYijRJZiT6xCgj8eR7UpZUF2N+5Su5PhYl me@host"
	rsa     = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDXk6mQuJYCGqq93TZVo42n2RBXAC2OHwrGy7Qn18bXy+oTxwQxfz90T89Az8GWSidE+0vu94NvSyltb+CmA2RXUK+P3zMCzsMtTH3uUeVdD0dQYywz7+d7FmWyuFrAu/ZIg66+vwLjQgrZpgRNEMDzkXn7/T5f1BdEyJnysHH9VsqlHLx4fq6EE1ewxqbmZ+bLmoY+IH8f/xTSOIW5VABBkTBQQn5BbESUaq/cyPyZ1mou4Q1uQgrije0hCUrR+VCTzm1LC0HKAiRXuYRzhI98lUGanYUvJQsaYNAJiRpUGfIVLJqf9Go5+st79jFHrXa4msgOwCRI6eSEMUaVayfP"
	signed  = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIDX+yJGmHRqXMuCKJIYz5w+jtjDgVgvNqklFJsTgLX+JAAAAIIdknWA/03xYijRJZiT6xCgj8eR7UpZUF2N+5Su5PhYlAAAAAAAAAAAAAAABAAAAAXgAAAAIAAAABHJvb3QAAAAAAAAAAP//////////AAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAARcAAAAHc3NoLXJzYQAAAAMBAAEAAAEBANeTqZC4lgIaqr3dNlWjjafZEFcALY4fCsbLtCfXxtfL6hPHBDF/P3RPz0DPwZZKJ0T7S+73g29LKW1v4KYDZFdQr4/fMwLOwy1Mfe5R5V0PR1BjLDPv53sWZbK4WsC79kiDrr6/AuNCCtmmBE0QwPORefv9Pl/UF0TImfKwcf1WyqUcvHh+roQTV7DGpuZn5suahj4gfx//FNI4hblUAEGRMFBCfkFsRJRqr9zI/JnWai7hDW5CCuKN7SEJStH5UJPObUsLQcoCJFe5hHOEj3yVQZqdhS8lCxpg0AmJGlQZ8hUsmp/0ajn6y3v2MUetdriayA7AJEjp5IQxRpVrJ88AAAEUAAAADHJzYS1zaGEyLTUxMgAAAQBlhXomzrBNYbStL+6y3vxXZcWHmVXwPfNIn+Ywzo/1IX6mO1xOV8BQFGjefRwZVGCMLBAM1BrFXhQitro6VdcyLGPNFp+8THoczUB48aSdJgmS9B6l0hcPNs2G4RWvuLhh0CecLa4FoXx2uCH9qMYMWINaGbEL/CFwAPc4hSLZ7HWYlF37fqIJHGg/wDur/7jlYFQ4bsJ67JxT11+w7yTScxErSZVpdQs4ucIH2L5vxJzz1C145yX3mGoprLqFdrzD0xGwwm+I7fXDpNXisexZXTOljr4ZxTTdUXJqTv3W4EJXr3DCg0YtiRAFOFS179GoCUAGbmbmBMECzUjai4Sp me@host"
)

func TestParse(t *testing.T) {
	k, err := Parse("  " + ed25519 + "\r\n")
	want := Key{Type: "ssh-ed25519", Fingerprint: "SHA256:YqfPCc4IhUqnUUIg6c0hflA7HATFk97uZlzLSMHrhOc", Comment: "me@host", Line: ed25519}
	if err != nil || k != want {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err := Parse(rsa); err != nil || k.Type != "ssh-rsa" || k.Comment != "" {
		t.Errorf("%+v, %v", k, err)
	}
	key := strings.TrimSuffix(ed25519, " me@host")
	for what, text := range map[string]string{
		"nothing": "", "words": "my key", "a comment": "# " + ed25519, "no type": strings.TrimPrefix(key, "ssh-ed25519 "),
		"two lines": ed25519 + "\n" + ed25519, "a line break in the comment": ed25519 + "\nPermitRootLogin yes", "a NUL": ed25519 + "\x00",
		"another type": "ssh-rsa " + strings.TrimPrefix(key, "ssh-ed25519 "), "cut short": key[:len(key)-9], "not base64": key[:30] + "!" + key[31:],
		"a command": `command="id" ` + ed25519, "an option": "no-pty " + ed25519, "a certificate": signed,
		"a private key": "-----BEGIN OPENSSH PRIVATE KEY-----", "endless": ed25519 + strings.Repeat("x", MaxLine),
	} {
		if k, err := Parse(text); !errs.Is(err, errs.InvalidField) {
			t.Errorf("%s: %+v, %v", what, k, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{ed25519, rsa, signed, `command="a\"b",no-pty ` + ed25519} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(k.Line); err != nil || again != k || strings.ContainsAny(k.Line, "\n\r\x00") {
			t.Errorf("%q: %+v, then %+v, %v", s, k, again, err)
		}
	})
}
