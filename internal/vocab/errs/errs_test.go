package errs

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCodeOf(t *testing.T) {
	coded := New(VMBusy, "busy").Because(New(DBUnavailable, "away"))
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, ""}, {errors.New("x"), Internal}, {coded, VMBusy}, {fmt.Errorf("place: %w", coded), VMBusy}, {errors.Join(errors.New("x"), coded), VMBusy},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
		if Is(c.err, c.want) != (c.err != nil) {
			t.Errorf("%v: Is %s", c.err, c.want)
		}
	}
}

// An error without a code tells people nothing of its inside, and the log all.
func TestAsHidesTheCause(t *testing.T) {
	secret := errors.New("SELECT password FROM /var/lib")
	e := As(secret)
	if e.Code != Internal || strings.Contains(e.Message, "SELECT") || !errors.Is(e, secret) || !strings.Contains(e.Error(), "SELECT") {
		t.Errorf("%+v", e)
	}
	known := New(NotFound, "there is no VM %q", "a").Because(secret)
	if got := As(fmt.Errorf("read: %w", known)); got != known || strings.Contains(got.Message, "SELECT") {
		t.Errorf("%+v", got)
	}
}

func TestParts(t *testing.T) {
	e := New(InvalidField, "no").At(Field{Pointer: "/a", Got: strings.Repeat("x", 1000) + "\n"}).At(Field{Code: OutOfRange, Pointer: "/b"}).HeldBy("job").BlockedBy("a", "b").BlockedBy("c")
	if len(e.Fields) != 2 || e.Fields[0].Code != InvalidField || e.Fields[1].Code != OutOfRange || len(e.Fields[0].Got) > clipLen+4 {
		t.Errorf("%+v", e.Fields)
	}
	if e.Job != "job" || strings.Join(e.Blockers, "") != "abc" {
		t.Errorf("%+v", e)
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "a\nb": `a\nb`, "\x00": `\x00`, `"`: `\"`, "\u202e": `\u202e`, "é": "é", "\xff": `\xff`, strings.Repeat("a", 65): strings.Repeat("a", 64) + "…",
	} {
		if got := Clip(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Clip(strings.Repeat("é", 1000)); !utf8.ValidString(got) || len(got) > 4*clipLen {
		t.Errorf("%q", got)
	}
}

func TestRetryable(t *testing.T) {
	for c, want := range map[Code]bool{NodeUnreachable: true, Timeout: true, DBUnavailable: true, RateLimited: true, VMBusy: true, InvalidName: false, Internal: false, StaleEpoch: false, NotFound: false, "": false, "unheard_of": false} {
		if c.Retryable() != want {
			t.Errorf("%s: %v", c, !want)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("a\x00\u202eé\xff" + strings.Repeat("日", 40)) //nolint:gosmopolitan // wide runes are the point
	f.Fuzz(func(t *testing.T, s string) {
		got := Clip(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\n\r\x1b") || len(got) > 12*clipLen {
			t.Errorf("%q", got)
		}
	})
}

// Every code has a meaning and a way out.
func TestEveryCodeHasAMeaning(t *testing.T) {
	source, err := os.ReadFile("code.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Code = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		if got := Code(m[1]).Meaning(); got.What == "" || got.Do == "" {
			t.Errorf("%s has no meaning", m[1])
		}
	}
	if len(Codes()) < 40 {
		t.Errorf("%d codes", len(Codes()))
	}
}
