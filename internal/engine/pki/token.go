package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Prefixes tell people and secret scanners what a token is for.
const (
	PrefixAPI   = "nvc_"
	PrefixJoin  = "nvj_"
	PrefixSetup = "nvs_"
	// PrefixTicket is of what opens one console, once.
	PrefixTicket = "nvt_"
)

// NewSecret makes a token of 256 random bits with a prefix, and the hash that
// is all the database keeps of it.
func NewSecret(prefix string) (token string, hash []byte) {
	b := make([]byte, 32)
	rand.Read(b)
	token = prefix + base64.RawURLEncoding.EncodeToString(b)
	return token, HashSecret(token)
}

// HashSecret is what is stored of a token. The token has 256 random bits, so a
// plain hash is enough and constant time comes from looking it up by hash.
func HashSecret(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// JoinToken is what an agent needs to join: a secret, whom to trust, where to go.
type JoinToken struct {
	Secret  string   `json:"s"`
	Pin     []byte   `json:"p"`
	Servers []string `json:"a"`
}

// String writes the token as one word.
func (j JoinToken) String() string {
	b, err := json.Marshal(j) //nolint:gosec // the token is the secret, and is shown once
	if err != nil {
		panic(err) // strings and bytes always marshal
	}
	return PrefixJoin + base64.RawURLEncoding.EncodeToString(b)
}

// ParseJoinToken reads what String wrote.
func ParseJoinToken(s string) (JoinToken, error) {
	var j JoinToken
	s = strings.TrimSpace(s)
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(s, PrefixJoin))
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	if err != nil || !strings.HasPrefix(s, PrefixJoin) || len(j.Pin) != sha256.Size || j.Secret == "" || len(j.Servers) == 0 {
		return j, errs.New(errs.InvalidField, "this is not a join token: make one with 'novacron node token' and pass it whole").Because(err)
	}
	return j, nil
}
