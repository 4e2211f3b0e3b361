// Package sshkey reads public SSH keys as they stand in an authorized_keys file.
package sshkey

import (
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// MaxLine bounds a key with its comment, in bytes; an RSA key of 16384 bits takes
// 2,800.
const MaxLine = 8 << 10

// Key is a public key.
type Key struct {
	// Type is such as "ssh-ed25519".
	Type string
	// Fingerprint is "SHA256:..." as ssh-keygen shows it.
	Fingerprint string
	Comment     string
	// Line is the key on one line, without white space around it.
	Line string
}

// Parse reads one key: its type, its content in base64, a comment. Options, such
// as command="...", and certificates are refused: who wants them says so in user
// data. The error is errs.InvalidField.
func Parse(text string) (Key, error) {
	line := strings.TrimSpace(text)
	switch {
	case len(line) > MaxLine:
		return Key{}, errs.New(errs.InvalidField, "an SSH key has at most %d bytes", MaxLine)
	case strings.ContainsFunc(line, unicode.IsControl):
		return Key{}, errs.New(errs.InvalidField, "an SSH key stands on one line, without control characters")
	}
	pub, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return Key{}, errs.New(errs.InvalidField, "%q is not a public SSH key, such as 'ssh-ed25519 AAAA... me@host'", errs.Clip(line)).Because(err)
	}
	if len(options) > 0 {
		return Key{}, errs.New(errs.InvalidField, "an SSH key is taken without options such as %q: write those in user data", errs.Clip(options[0]))
	}
	if _, is := pub.(*ssh.Certificate); is {
		return Key{}, errs.New(errs.InvalidField, "%s is a certificate, not a key that opens an account", pub.Type())
	}
	return Key{Type: pub.Type(), Fingerprint: ssh.FingerprintSHA256(pub), Comment: comment, Line: line}, nil
}
