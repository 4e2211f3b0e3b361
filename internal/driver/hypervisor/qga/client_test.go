package qga_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/driver/hypervisor/qga"
)

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// agent answers as qemu-guest-agent does: guest-sync-delimited by itself, the rest by
// what it is told for each command. before is what lies in the line already.
func agent(t testing.TB, before string, answers map[string]string) net.Conn {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
	go func() {
		in := bufio.NewReader(theirs)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			if i := bytes.LastIndexByte(line, 0xFF); i >= 0 {
				line = line[i+1:]
			}
			var req struct {
				Execute   string `json:"execute"`
				Arguments struct {
					ID int64 `json:"id"`
				} `json:"arguments"`
			}
			if json.Unmarshal(line, &req) != nil {
				return
			}
			reply := answers[req.Execute]
			if req.Execute == "guest-sync-delimited" && reply == "" {
				reply = before + fmt.Sprintf("\xff{\"return\": %d}", req.Arguments.ID)
			}
			if _, err := io.WriteString(theirs, reply+"\n"); err != nil {
				return
			}
		}
	}()
	return ours
}

// What lies in the line from before is no answer, whatever it looks like.
func TestForgetsWhatCameBefore(t *testing.T) {
	for _, before := range []string{"", `{"return": {"pid": 4}}` + "\n", `{"return": {"ver`, strings.Repeat("x", 100_000), "\xff{\"return\": 5}\n\xff{\"return\": 6}\n"} {
		c, err := qga.New(within(t, 10*time.Second), agent(t, before, map[string]string{"guest-info": `{"return": {"version": "7.2.22"}}`}))
		if err != nil {
			t.Fatalf("behind %.20q: %v", before, err)
		}
		if v, err := c.Version(within(t, 10*time.Second)); err != nil || v != "7.2.22" {
			t.Errorf("behind %.20q: %q %v", before, v, err)
		}
		_ = c.Close()
	}
}

// A guest's answers are cut, cleaned and checked.
func TestAnswersAreBounded(t *testing.T) {
	many := strings.Repeat(`{"name": "e", "ip-addresses": [{"ip-address": "10.0.0.1", "prefix": 24}]},`, 5000)
	c, err := qga.New(within(t, 10*time.Second), agent(t, "", map[string]string{
		"guest-network-get-interfaces": `{"return": [` + many + `{"name": "x\u001b[2J\u0000y", "hardware-address": "` + strings.Repeat("m", 9000) + `"}]}`,
		"guest-get-fsinfo":             `{"return": [{"mountpoint": "/\n", "type": "ext4", "total-bytes": -5, "used-bytes": 900}, {"mountpoint": "/d", "type": "x", "total-bytes": 10, "used-bytes": 900}]}`,
		"guest-exec":                   `{"error": {"class": "GenericError", "desc": "no such file"}}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	faces, err := c.Interfaces(within(t, 10*time.Second))
	if err != nil || len(faces) != 64 || faces[0].Addresses[0].String() != "10.0.0.1/24" {
		t.Errorf("%d interfaces, %v", len(faces), err)
	}
	mounts, err := c.Mounts(within(t, 10*time.Second))
	if err != nil || mounts[0].Path != "/" || mounts[0].TotalBytes != 0 || mounts[0].UsedBytes != 0 || mounts[1].UsedBytes != 10 {
		t.Errorf("%+v %v", mounts, err)
	}
	_, err = c.Start(within(t, 10*time.Second), "/bin/none", nil, nil)
	if e, ok := errors.AsType[*qga.Error](err); !ok || e.Desc != "no such file" {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := c.Mounts(within(t, 10*time.Second)); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

// One that says nothing, floods, breaks off or answers nonsense costs the time it was
// given at most.
func TestStrangersAreCutOff(t *testing.T) {
	flood := strings.Repeat("a", qga.MaxReply+100)
	for name, line := range map[string]string{
		"floods without an answer": flood, "an answer too long": "\xff" + flood, "other numbers for ever": strings.Repeat("\xff{\"return\": 7}\n", 100),
		"nonsense": "\xff}{", "a list": "\xff[]", "nothing in it": "\xff{}",
	} {
		if _, err := qga.New(within(t, 20*time.Second), agent(t, "", map[string]string{"guest-sync-delimited": line})); !errors.Is(err, qga.ErrSilent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	if _, err := qga.New(within(t, 50*time.Millisecond), ours); !errors.Is(err, qga.ErrSilent) {
		t.Errorf("one that is silent: %v", err)
	}
}

// Whatever a guest sends, the client neither panics nor hangs.
func FuzzAgent(f *testing.F) {
	for _, seed := range []string{
		"\xff{\"return\": 0}\n{\"return\": []}\n", "\xff{\"return\": {}}\n", `{"return": 1}` + "\n", "\xff\xff\xff", "",
		"\xff{\"error\": {\"class\": \"x\", \"desc\": \"y\"}}\n", "\xff{\"return\": 9007199254740993}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Read(make([]byte, 4096))
			_, _ = theirs.Write(sent)
			_ = theirs.Close()
		}()
		c, err := qga.New(within(t, 20*time.Second), ours)
		if err != nil {
			return
		}
		_, _ = c.Interfaces(within(t, 20*time.Second))
		_ = c.Close()
	})
}

// The answers themselves, whatever is in them.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{"return": [{"name": "eth0", "ip-addresses": [{"ip-address": "fe80::1%eth0", "prefix": 640}]}]}`,
		`{"return": [{"mountpoint": "/", "total-bytes": 9223372036854775807, "used-bytes": -1}]}`,
		`{"return": {"exited": true, "exitcode": 1, "out-data": "!!"}}`, `{"return": {"version": null}}`, `[]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		if strings.IndexByte(answer, 0x0A) >= 0 || strings.IndexByte(answer, 0xFF) >= 0 {
			return
		}
		all := map[string]string{}
		for _, name := range []string{"guest-info", "guest-network-get-interfaces", "guest-get-fsinfo", "guest-exec", "guest-exec-status"} {
			all[name] = answer
		}
		ctx := within(t, 20*time.Second)
		ask := map[string]func(*qga.Client){
			"version": func(c *qga.Client) { _, _ = c.Version(ctx) },
			"interfaces": func(c *qga.Client) {
				faces, _ := c.Interfaces(ctx)
				for _, i := range faces {
					if len(i.Name) > 255 || strings.ContainsAny(i.Name, "\x00\x1b") {
						t.Errorf("a name %q", i.Name)
					}
				}
			},
			"mounts": func(c *qga.Client) {
				mounts, _ := c.Mounts(ctx)
				for _, m := range mounts {
					if m.UsedBytes > m.TotalBytes || m.UsedBytes < 0 {
						t.Errorf("%+v", m)
					}
				}
			},
			"look": func(c *qga.Client) { _, _ = c.Look(ctx, 1) },
		}
		for _, f := range ask {
			c, err := qga.New(ctx, agent(t, "", all))
			if err != nil {
				t.Fatal(err)
			}
			f(c)
			_ = c.Close()
		}
	})
}
