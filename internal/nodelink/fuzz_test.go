package nodelink

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// Whatever a peer sends as a frame, each message is read or refused with a code,
// what is read can be written again, and a peer's words are fit to be shown.
func FuzzFrame(f *testing.F) {
	for _, m := range messages {
		body, err := json.Marshal(reflect.New(reflect.TypeOf(m)).Interface())
		if err != nil {
			f.Fatal(err)
		}
		frame, err := json.Marshal(pack(7, json.RawMessage(body), nil))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Add([]byte(`{"id":1,"error":{"code":"vm_busy\u0000","message":"a\nb","blockers":["\u001b[2J"]}}`))
	f.Fuzz(func(t *testing.T, sent []byte) {
		var in frame
		if (codec{}).Unmarshal(sent, &in) != nil {
			return
		}
		if err := in.Error.Err(); err != nil {
			shown(t, err)
		}
		for _, m := range messages {
			v := reflect.New(reflect.TypeOf(m)).Interface()
			if err := in.unpack(v); err != nil {
				if in.Error == nil && errs.CodeOf(err) != errs.Internal {
					t.Errorf("%T of %q: %v", m, sent, err)
				}
				continue
			}
			if _, err := (codec{}).Marshal(v); err != nil {
				t.Errorf("%T of %q was read and cannot be written: %v", m, sent, err)
			}
		}
	})
}

func shown(t *testing.T, err error) {
	t.Helper()
	e := errs.As(err)
	for _, text := range append([]string{string(e.Code), e.Message, e.Job}, e.Blockers...) {
		if len(text) > 4*maxText {
			t.Errorf("a text of %d bytes", len(text))
		}
		for _, r := range text {
			if unicode.IsControl(r) {
				t.Errorf("the control character %U in %q", r, text)
			}
		}
	}
}
