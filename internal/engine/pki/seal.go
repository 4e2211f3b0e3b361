package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Sealer encrypts small secrets for the database under the key-encryption key.
type Sealer struct{ aead cipher.AEAD }

// NewSealer takes a key of 32 bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) != 32 {
		return nil, errs.New(errs.Internal, "the key-encryption key must be 32 bytes, not %d", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errs.New(errs.Internal, "the key-encryption key does not work").Because(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errs.New(errs.Internal, "the key-encryption key does not work").Because(err)
	}
	return &Sealer{aead: aead}, nil
}

// SealerFromFile reads the key from a file of 64 hexadecimal digits, making it
// (mode 0600) when make is set and there is none. All servers of a cluster need
// the same file.
func SealerFromFile(path string, create bool) (*Sealer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		b, err = createKeyFile(path)
	}
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the key-encryption key cannot be read; every server of a cluster needs the same key file").Because(err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, errs.New(errs.HostFailure, "the key-encryption key is not 64 hexadecimal digits").Because(err)
	}
	return NewSealer(key)
}

// createKeyFile makes the file as a whole or not at all; of two that race, the
// first wins and both read the same key.
func createKeyFile(path string) ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key)
	text := []byte(hex.EncodeToString(key) + "\n")
	f, err := os.CreateTemp(filepath.Dir(path), ".kek-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// what is sealed next is durable at once, and worth nothing without the key
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// Seal encrypts a secret; purpose binds it, so that one sealed value cannot
// stand in another's place.
func (s *Sealer) Seal(purpose string, secret []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce)
	return s.aead.Seal(nonce, nonce, secret, []byte(purpose))
}

// Open decrypts what Seal made for the same purpose.
func (s *Sealer) Open(purpose string, sealed []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < n {
		return nil, errs.New(errs.Internal, "a sealed secret is cut short")
	}
	out, err := s.aead.Open(nil, sealed[:n], sealed[n:], []byte(purpose))
	if err != nil {
		return nil, errs.New(errs.Internal, "a sealed secret does not open: this server's key file is not this cluster's").Because(err)
	}
	return out, nil
}
