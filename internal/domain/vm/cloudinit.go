package vm

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/sshkey"
	"github.com/novacron/novacron/internal/vocab/strictyaml"
	"github.com/novacron/novacron/internal/vocab/unit"
)

// Bounds of what a guest is told at its first boot.
const (
	// MaxCloudText bounds each text, in bytes.
	MaxCloudText = 64 * unit.KiB
	MaxSSHKeys   = 64
	// maxHostname is what Linux keeps (HOST_NAME_MAX); maxHostLabel is of RFC 1123.
	maxHostname  = 64
	maxHostLabel = 63
	// maxCloudDepth is how deep a document may be nested.
	maxCloudDepth = 32
)

// CloudInit is what cloud-init in a guest finds on the VM's seed. What is empty
// is not told; a CloudInit with nothing in it is none.
type CloudInit struct {
	// Hostname is the VM's name when empty.
	Hostname string
	// SSHAuthorizedKeys are public keys that open the guest's first account.
	SSHAuthorizedKeys []string
	// UserData reaches the guest byte for byte.
	UserData string
	// NetworkConfig is cloud-init's own format, version 1 or 2, as YAML.
	NetworkConfig string
	// MetaData are further fields of the instance, as YAML.
	MetaData string
}

const twoSeeds = "cannot be beside cloud_init: a VM has one seed, made by NovaCron or one of your own; take the other away"

// Empty tells whether nothing is to be told.
func (c *CloudInit) Empty() bool {
	return c.Hostname == "" && len(c.SSHAuthorizedKeys) == 0 && c.UserData == "" && c.NetworkConfig == "" && c.MetaData == ""
}

// OrNil is nil for one with nothing in it.
func (c *CloudInit) OrNil() *CloudInit {
	if c == nil || c.Empty() {
		return nil
	}
	return c
}

// For gives what a clone of a name is told: the same, but for the host name, which
// is its own.
func (c *CloudInit) For(name string) *CloudInit {
	if c == nil {
		return nil
	}
	own := *c
	own.Hostname = ""
	if own.Empty() {
		own.Hostname = name
	}
	return &own
}

// Equal tells whether a guest would be told the same.
func (c *CloudInit) Equal(o *CloudInit) bool { return len(c.Changed(o)) == 0 }

// Changed names the fields in which two differ; nil is one with nothing in it.
func (c *CloudInit) Changed(o *CloudInit) []string {
	a, b := orNone(c), orNone(o)
	var out []string
	for _, f := range []struct {
		name    string
		differs bool
	}{
		{"hostname", a.Hostname != b.Hostname},
		{"ssh_authorized_keys", !slices.Equal(a.SSHAuthorizedKeys, b.SSHAuthorizedKeys)},
		{"user_data", a.UserData != b.UserData},
		{"network_config", a.NetworkConfig != b.NetworkConfig},
		{"meta_data", a.MetaData != b.MetaData},
	} {
		if f.differs {
			out = append(out, f.name)
		}
	}
	return out
}

func orNone(c *CloudInit) CloudInit {
	if c == nil {
		return CloudInit{}
	}
	return *c
}

// cloudInit checks what a guest is to be told.
func (v *validation) cloudInit(at string, c *CloudInit) {
	if c == nil {
		return
	}
	v.hostname(at+"/hostname", c.Hostname)
	v.sshKeys(at+"/ssh_authorized_keys", c.SSHAuthorizedKeys)
	v.cloudText(at+"/user_data", c.UserData, checkUserData)
	v.cloudText(at+"/network_config", c.NetworkConfig, checkNetworkConfig)
	v.cloudText(at+"/meta_data", c.MetaData, checkMetaData)
}

const hostGrammar = "1 to 64 characters: labels of a-z, A-Z, 0-9 and '-', parted by dots, each beginning and ending with a letter or digit and at most 63 long (RFC 1123)"

func (v *validation) hostname(at, name string) {
	if name == "" {
		return
	}
	ok := len(name) <= maxHostname
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && hostLabel(label)
	}
	if !ok {
		v.refuse(errs.InvalidField, at, "is not a host name: "+hostGrammar, "", name)
	}
}

func hostLabel(s string) bool {
	if s == "" || len(s) > maxHostLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

func (v *validation) sshKeys(at string, keys []string) {
	v.between(at, int64(len(keys)), 0, MaxSSHKeys, plain)
	for i, k := range keys {
		// what came is not repeated: it may be a private key
		if _, err := sshkey.Parse(k); err != nil {
			v.refuse(errs.InvalidField, at+"/"+strconv.Itoa(i), errs.As(err).Message, "", "")
		}
	}
}

// cloudText checks a text by what it is to be. An empty one is none.
func (v *validation) cloudText(at, text string, check func(string) error) {
	if text == "" {
		return
	}
	if len(text) > int(MaxCloudText) {
		v.refuse(errs.OutOfRange, at, "is longer than "+unit.FormatBytes(MaxCloudText), unit.FormatBytes(MaxCloudText), plain(int64(len(text))))
		return
	}
	if i := strings.IndexByte(text, 0); i >= 0 {
		v.refuse(errs.InvalidField, at, "holds a NUL at byte "+strconv.Itoa(i), "", "")
		return
	}
	if err := check(text); err != nil {
		v.refuse(codeOf(err), at, err.Error(), "", "")
	}
}

func codeOf(err error) errs.Code {
	if e, ok := errors.AsType[*strictyaml.Error](err); ok {
		return e.Code
	}
	return errs.CodeOf(err)
}

// cloudRules are those for documents that cloud-init reads. "!!binary" is how it
// is given the content of files.
var cloudRules = strictyaml.Rules{MaxScalar: int(MaxCloudText), MaxDepth: maxCloudDepth, Tags: []string{"!!binary", "!!timestamp"}}

// userDataKinds are the beginnings by which cloud-init, and cloudbase-init in
// Windows, tell what user data is. What begins otherwise they would pass over in
// silence. An archive is a list; everything else is taken as it is.
var userDataKinds = []struct {
	begin string
	check func(string) error
}{
	{"#cloud-config-archive", func(s string) error { return strictyaml.CheckList(s, cloudRules) }},
	{"#cloud-config-jsonp", nil},
	{"#cloud-config", checkCloudConfig},
	{"#!", nil},
	{"#cloud-boothook", nil},
	{"#include", nil},
	{"#part-handler", nil},
	{"## template:", nil},
	{"#ps1", nil},
	{"rem cmd", nil},
	{"Content-Type:", nil},
	{"MIME-Version:", nil},
	{"From ", nil},
}

func checkUserData(text string) error {
	text = strings.TrimLeft(text, " \t\r\n") // as cloud-init does
	for _, k := range userDataKinds {
		switch {
		case len(text) < len(k.begin) || !strings.EqualFold(text[:len(k.begin)], k.begin):
		case k.check == nil:
			return nil
		default:
			return k.check(text)
		}
	}
	first, _, _ := strings.Cut(text, "\n")
	return &strictyaml.Error{
		Code:    errs.InvalidField,
		Message: "cloud-init does not know user data that begins with " + strconv.Quote(errs.Clip(first)) + ": begin it with #cloud-config, #! or a MIME header",
	}
}

func checkCloudConfig(text string) error {
	_, err := strictyaml.ReadMapping(text, cloudRules)
	return err
}

// checkNetworkConfig wants a version where cloud-init looks for it: without one
// it configures the network by itself, and says so only in its log.
func checkNetworkConfig(text string) error {
	m, err := strictyaml.ReadMapping(text, cloudRules)
	if err != nil {
		return err
	}
	version, ok := m.Text("version")
	if !ok {
		version, ok = m.Text("network", "version")
	}
	if !ok || (version != "1" && version != "2") {
		return &strictyaml.Error{Code: errs.InvalidField, Message: "a network configuration says its version: 1 or 2"}
	}
	return nil
}

// ours are fields of meta-data that NovaCron writes.
var ours = map[string]string{
	"instance-id":    "it is the VM's id",
	"local-hostname": "say hostname instead",
	"hostname":       "say hostname instead",
	"public-keys":    "say ssh_authorized_keys instead",
}

func checkMetaData(text string) error {
	m, err := strictyaml.ReadMapping(text, cloudRules)
	if err != nil {
		return err
	}
	for _, field := range m.Fields() {
		if instead, ok := ours[field]; ok {
			return &strictyaml.Error{Code: errs.FieldNotWritable, Message: "the field " + field + " cannot be set here: " + instead}
		}
	}
	return nil
}

// SeedFile is a file of a seed.
type SeedFile struct{ Name, Content string }

// noUserData says that there is none, which cloud-init wants to be told.
const noUserData = "#cloud-config\n{}\n"

// Seed gives the files of the VM's seed, as cloud-init's NoCloud data source reads
// them; none when the guest is told nothing. The same intent gives the same bytes.
// A clone has another id, by which cloud-init sees that it is another machine.
func (in Intent) Seed() ([]SeedFile, error) {
	c := in.CloudInit.OrNil()
	if c == nil {
		return nil, nil
	}
	further, err := strictyaml.ReadMapping(c.MetaData, cloudRules)
	if err != nil {
		return nil, errs.New(errs.Internal, "the meta-data of VM %q cannot be read", in.Name).Because(err)
	}
	meta, err := in.metaData(*c).Join(further).Encode()
	if err != nil {
		return nil, err
	}
	user := c.UserData
	if user == "" {
		user = noUserData
	}
	files := []SeedFile{{"meta-data", meta}, {"user-data", user}}
	if c.NetworkConfig != "" {
		files = append(files, SeedFile{"network-config", c.NetworkConfig})
	}
	return files, nil
}

func (in Intent) metaData(c CloudInit) strictyaml.Mapping {
	host := c.Hostname
	if host == "" {
		host = in.Name
	}
	m := strictyaml.NewMapping()
	m.Put("instance-id", in.ID.String())
	m.Put("local-hostname", host)
	if len(c.SSHAuthorizedKeys) > 0 {
		keys := make([]string, len(c.SSHAuthorizedKeys))
		for i, k := range c.SSHAuthorizedKeys {
			keys[i] = strings.TrimSpace(k)
		}
		m.PutList("public-keys", keys)
	}
	return m
}
