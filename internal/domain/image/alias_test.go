package image

import (
	"strings"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func TestCanTake(t *testing.T) {
	i := Image{ID: id.New(), Name: "debian-12", State: Ready}
	full := i
	full.Aliases = make([]string, maxAliases)
	uploading, deleting := i, i
	uploading.State, deleting.State = Uploading, Deleting
	another := id.New()
	for name, c := range map[string]struct {
		image  Image
		alias  string
		holder *Holder
		want   errs.Code
	}{
		"Free":          {i, "debian", nil, ""},
		"Moved":         {i, "debian", &Holder{ImageID: another, Image: "debian-11", Alias: true}, ""},
		"ItsOwnAlready": {full, "debian", &Holder{ImageID: i.ID, Image: i.Name, Alias: true}, ""},
		"AName":         {i, "debian-11", &Holder{ImageID: another, Image: "debian-11"}, errs.AlreadyExists},
		"ItsOwnName":    {i, "debian-12", &Holder{ImageID: i.ID, Image: i.Name}, errs.AlreadyExists},
		"Uploading":     {uploading, "debian", nil, errs.InvalidState},
		"Deleting":      {deleting, "debian", nil, errs.InvalidState},
		"OneTooMany":    {full, "debian", nil, errs.OutOfRange},
		"NoName":        {i, "a b", nil, errs.InvalidName},
		"AnID":          {i, another.String(), nil, errs.InvalidName},
	} {
		if got := errs.CodeOf(c.image.CanTake(c.alias, c.holder)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestDeletable(t *testing.T) {
	i := Image{ID: id.New(), Name: "debian-12"}
	for _, ref := range []string{i.Name, i.ID.String()} {
		if err := Deletable(i, ref, nil, 0); err != nil {
			t.Error(err)
		}
	}
	if err := Deletable(i, "debian", nil, 0); !errs.Is(err, errs.Conflict) {
		t.Errorf("by an alias: %v", err)
	}
	for total, want := range map[int64]string{1: "1 VM is: a,b", 2: "2 VMs are: a,b", 40: "40 VMs are: a,b,and 38 more"} {
		names := []string{"a", "b"}
		if total == 1 {
			names, want = names[:1], "1 VM is: a"
		}
		e := errs.As(Deletable(i, i.Name, names, total))
		head, list, _ := strings.Cut(want, ":")
		if e.Code != errs.InUse || !strings.HasPrefix(e.Message, head) || strings.Join(e.Blockers, ",") != strings.TrimSpace(list) {
			t.Errorf("%d: %+v", total, e)
		}
	}
}
