package vm

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	aKey     = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdknWA/03xYijRJZiT6xCgj8eR7UpZUF2N+5Su5PhYl me@host"
	otherKey = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDXk6mQuJYCGqq93TZVo42n2RBXAC2OHwrGy7Qn18bXy+oTxwQxfz90T89Az8GWSidE+0vu94NvSyltb+CmA2RXUK+P3zMCzsMtTH3uUeVdD0dQYywz7+d7FmWyuFrAu/ZIg66+vwLjQgrZpgRNEMDzkXn7/T5f1BdEyJnysHH9VsqlHLx4fq6EE1ewxqbmZ+bLmoY+IH8f/xTSOIW5VABBkTBQQn5BbESUaq/cyPyZ1mou4Q1uQgrije0hCUrR+VCTzm1LC0HKAiRXuYRzhI98lUGanYUvJQsaYNAJiRpUGfIVLJqf9Go5+st79jFHrXa4msgOwCRI6eSEMUaVayfP"
)

func told() CloudInit {
	return CloudInit{
		Hostname: "web.example.org", SSHAuthorizedKeys: []string{aKey, " " + otherKey + "\n"},
		UserData: "#cloud-config\nruncmd: [id]\n", NetworkConfig: "version: 2\nethernets: {eth0: {dhcp4: true}}\n", MetaData: "role: web\n",
	}
}

func TestCloudInitIsTaken(t *testing.T) {
	for what, touch := range map[string]func(*CloudInit){
		"all":                  func(*CloudInit) {},
		"nothing":              func(c *CloudInit) { *c = CloudInit{} },
		"one label":            func(c *CloudInit) { c.Hostname = "Web-1" },
		"a long name":          func(c *CloudInit) { c.Hostname = strings.Repeat("a", 62) + ".b" },
		"version 1":            func(c *CloudInit) { c.NetworkConfig = "version: 1\nconfig: []\n" },
		"version below":        func(c *CloudInit) { c.NetworkConfig = "network:\n  version: 2\n" },
		"as much as can be":    func(c *CloudInit) { c.UserData = "#!" + strings.Repeat("x", int(MaxCloudText)-2) },
		"meta-data of comment": func(c *CloudInit) { c.MetaData = "# none\n" },
	} {
		s := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, CloudInit: new(told())}
		touch(s.CloudInit)
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCloudInitRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		touch func(*CloudInit)
		field string
		code  errs.Code
	}{
		"a line break in the name": {func(c *CloudInit) { c.Hostname = "a\nb" }, "/hostname", errs.InvalidField},
		"a NUL in the name":        {func(c *CloudInit) { c.Hostname = "a\x00" }, "/hostname", errs.InvalidField},
		"two dots":                 {func(c *CloudInit) { c.Hostname = "a..b" }, "/hostname", errs.InvalidField},
		"a dot at the end":         {func(c *CloudInit) { c.Hostname = "a." }, "/hostname", errs.InvalidField},
		"a dash at the end":        {func(c *CloudInit) { c.Hostname = "a-.b" }, "/hostname", errs.InvalidField},
		"an underscore":            {func(c *CloudInit) { c.Hostname = "a_b" }, "/hostname", errs.InvalidField},
		"a long label":             {func(c *CloudInit) { c.Hostname = strings.Repeat("a", 64) }, "/hostname", errs.InvalidField},
		"a long name":              {func(c *CloudInit) { c.Hostname = strings.Repeat("a.", 32) + "b" }, "/hostname", errs.InvalidField},
		"no key":                   {func(c *CloudInit) { c.SSHAuthorizedKeys[1] = "me@host" }, "/ssh_authorized_keys/1", errs.InvalidField},
		"a line break in a key":    {func(c *CloudInit) { c.SSHAuthorizedKeys[0] = aKey + "\nroot" }, "/ssh_authorized_keys/0", errs.InvalidField},
		"a key's options":          {func(c *CloudInit) { c.SSHAuthorizedKeys[0] = "no-pty " + aKey }, "/ssh_authorized_keys/0", errs.InvalidField},
		"many keys":                {func(c *CloudInit) { c.SSHAuthorizedKeys = slices.Repeat([]string{aKey}, MaxSSHKeys+1) }, "/ssh_authorized_keys", errs.OutOfRange},
		"much user data":           {func(c *CloudInit) { c.UserData = "#!" + strings.Repeat("x", int(MaxCloudText)-1) }, "/user_data", errs.OutOfRange},
		"no version":               {func(c *CloudInit) { c.NetworkConfig = "ethernets: {}\n" }, "/network_config", errs.InvalidField},
		"another version":          {func(c *CloudInit) { c.NetworkConfig = "version: 3\n" }, "/network_config", errs.InvalidField},
		"a network's alias":        {func(c *CloudInit) { c.NetworkConfig = "version: 2\na: &a 1\nb: *a\n" }, "/network_config", errs.InvalidYAML},
		"a NUL in the network":     {func(c *CloudInit) { c.NetworkConfig = "version: 2\x00" }, "/network_config", errs.InvalidField},
		"much of the network":      {func(c *CloudInit) { c.NetworkConfig = strings.Repeat("#", int(MaxCloudText)+1) }, "/network_config", errs.OutOfRange},
		"an instance":              {func(c *CloudInit) { c.MetaData = "instance-id: i-1\n" }, "/meta_data", errs.FieldNotWritable},
		"another host name":        {func(c *CloudInit) { c.MetaData = "local-hostname: x\n" }, "/meta_data", errs.FieldNotWritable},
		"other keys":               {func(c *CloudInit) { c.MetaData = "public-keys: []\n" }, "/meta_data", errs.FieldNotWritable},
		"a list":                   {func(c *CloudInit) { c.MetaData = "- a\n" }, "/meta_data", errs.InvalidYAML},
	} {
		s := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, CloudInit: new(told())}
		c.touch(s.CloudInit)
		err := s.Validate()
		if f := errs.As(err).Fields; !errs.Is(err, c.code) || len(f) != 1 || f[0].Pointer != "/cloud_init"+c.field || f[0].Code != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// userData is one line of the corpus: what is written, and what it gets.
type userData struct {
	Name string `json:"name"`
	// Text is the user data; {{N:x}} stands for x, N times over.
	Text string `json:"text"`
	// Code is empty for what is taken. Says is part of the refusal.
	Code string `json:"code"`
	Says string `json:"says"`
}

func corpus(t testing.TB) (out []userData) {
	t.Helper()
	f, err := os.Open("../../../testdata/badinput/yaml/user-data.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var c userData
		if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		for a := strings.Index(c.Text, "{{"); a >= 0; a = strings.Index(c.Text, "{{") {
			b := a + strings.Index(c.Text[a:], "}}")
			count, what, _ := strings.Cut(c.Text[a+2:b], ":")
			n, err := strconv.Atoi(count)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			c.Text = c.Text[:a] + strings.Repeat(what, n) + c.Text[b+2:]
		}
		out = append(out, c)
	}
	return out
}

func TestUserData(t *testing.T) {
	for _, c := range corpus(t) {
		err := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, CloudInit: &CloudInit{UserData: c.Text}}.Validate()
		if string(errs.CodeOf(err)) != c.Code || (err != nil && !strings.Contains(err.Error(), c.Says)) {
			t.Errorf("%s: %v, want %s %q", c.Name, err, c.Code, c.Says)
		}
	}
}

// Whatever user data, network configuration and meta-data are, they are refused by
// a known code, or become a seed that has them.
func FuzzCloudConfig(f *testing.F) {
	for _, c := range corpus(f) {
		if len(c.Text) < 4096 {
			f.Add(c.Text, "version: 2\n", c.Text)
		}
	}
	f.Add("", "network: {version: 1, config: []}", "a: {b: [1, 'x', ~]}\nc: |\n  text\n")
	f.Fuzz(func(t *testing.T, user, network, meta string) {
		c := &CloudInit{Hostname: "h", UserData: user, NetworkConfig: network, MetaData: meta}
		err := Spec{Name: "a", CPUs: 1, MemoryBytes: MinMemory, CloudInit: c}.Validate()
		if err != nil {
			if code := errs.CodeOf(err); !slices.Contains([]errs.Code{errs.InvalidYAML, errs.InvalidField, errs.OutOfRange, errs.FieldNotWritable, errs.TooLarge}, code) {
				t.Errorf("%v", err)
			}
			return
		}
		files, err := Intent{ID: id.New(), Name: "a", CloudInit: c}.Seed()
		if err != nil || len(files) < 2 {
			t.Fatalf("%d files, %v", len(files), err)
		}
		if user != "" && files[1].Content != user {
			t.Errorf("user data became %q", files[1].Content)
		}
		if err := checkMetaData(strings.Replace(files[0].Content, "instance-id", "x-id", 1)); !errs.Is(asError(err), errs.FieldNotWritable) {
			t.Errorf("the meta-data cannot be read again: %v\n%s", err, files[0].Content)
		}
	})
}

// asError makes a reader's error one of ours.
func asError(err error) error {
	if err == nil {
		return nil
	}
	return errs.New(codeOf(err), "%v", err)
}

func TestSeed(t *testing.T) {
	in := Intent{ID: id.New(), Name: "web-1", CloudInit: new(told())}
	files, err := in.Seed()
	if err != nil {
		t.Fatal(err)
	}
	meta := "instance-id: \"" + in.ID.String() + "\"\nlocal-hostname: \"web.example.org\"\npublic-keys:\n  - \"" + aKey + "\"\n  - \"" + otherKey + "\"\nrole: web\n"
	want := []SeedFile{{"meta-data", meta}, {"user-data", told().UserData}, {"network-config", told().NetworkConfig}}
	if !slices.Equal(files, want) {
		t.Errorf("got %q\nwant %q", files, want)
	}
	if again, err := in.Seed(); err != nil || !slices.Equal(again, files) {
		t.Errorf("once more: %q, %v", again, err)
	}
	in.CloudInit = &CloudInit{UserData: "#!/bin/sh\n"}
	if files, err = in.Seed(); err != nil || len(files) != 2 || !strings.Contains(files[0].Content, `local-hostname: "web-1"`) {
		t.Errorf("without a host name: %q, %v", files, err)
	}
	for _, none := range []*CloudInit{nil, {}} {
		in.CloudInit = none
		if files, err := in.Seed(); err != nil || files != nil {
			t.Errorf("without anything: %q, %v", files, err)
		}
	}
}

// A clone is told the same under its own name; the original's stays its own.
func TestCloudInitForAClone(t *testing.T) {
	c := told()
	own := c.For("copy")
	if got := own.Changed(&c); !slices.Equal(got, []string{"hostname"}) || own.Hostname != "" || c.Hostname != "web.example.org" {
		t.Errorf("%v: %+v", got, own)
	}
	if own := (&CloudInit{Hostname: "a"}).For("copy"); own.Hostname != "copy" {
		t.Errorf("of a name alone: %+v", own)
	}
	if own := (*CloudInit)(nil).For("copy"); own != nil {
		t.Errorf("of nothing: %+v", own)
	}
}

func TestCloudInitChanges(t *testing.T) {
	in := Intent{Name: "web", CPUs: 1, MemoryBytes: MinMemory, CloudInit: new(told())}
	same, other := told(), told()
	other.UserData = ""
	for what, c := range map[string]struct {
		to      *CloudInit
		reseeds bool
		left    *CloudInit
	}{
		"nothing said": {nil, false, in.CloudInit}, "the same": {&same, false, in.CloudInit},
		"another": {&other, true, &other}, "none": {&CloudInit{}, true, nil},
	} {
		change := Change{CloudInit: c.to}
		out := change.Apply(in)
		if change.Reseeds(in) != c.reseeds || change.Rests(in) != c.reseeds || change.Differs(in) != c.reseeds || change.Resizes(in) || !out.CloudInit.Equal(c.left) || (out.CloudInit == nil) != (c.left == nil) {
			t.Errorf("%s: %+v", what, out.CloudInit)
		}
	}
	if (Change{CloudInit: &CloudInit{}}).Differs(Intent{}) {
		t.Error("none instead of none is a change")
	}
}
