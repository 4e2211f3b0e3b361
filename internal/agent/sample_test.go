package agent

import (
	"testing"
	"time"

	hypervisor "github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// A guest's memory is looked at soon after it began to execute and then less and less often;
// what was seen is of one incarnation, and forgotten with it.
func TestSamplesAreTakenAhead(t *testing.T) {
	s := newSamples()
	r := hypervisor.Ref{VM: id.New(), Epoch: 3}
	there := []hypervisor.Ref{r}
	var looks []time.Duration
	for now := time.Duration(0); now <= time.Hour; now += sampleEvery {
		for range s.due(there, now) {
			looks = append(looks, now)
			s.saw(r, int64(len(looks)), nil, now)
		}
	}
	if looks[0] > sampleSoon || len(looks) < 2 || looks[1]-looks[0] > 2*sampleSoon {
		t.Errorf("a guest that just began is looked at after %v", looks)
	}
	for k := 1; k < len(looks); k++ {
		if gap := looks[k] - looks[k-1]; gap > sampleRare*5/4+sampleEvery {
			t.Errorf("a guest is not looked at for %v", gap)
		}
	}
	if per := len(looks); per > 20 {
		t.Errorf("a guest is looked at %d times in an hour", per)
	}
	at := looks[len(looks)-1]
	s.saw(r, 0, errs.New(errs.Timeout, "it was not looked at in time"), at+time.Second)
	if was, ok := s.last(r); !ok || !was.known || was.rate != int64(len(looks)) || was.at != at {
		t.Errorf("after a look that failed, %+v is known: %v", was, ok)
	}
	next := hypervisor.Ref{VM: r.VM, Epoch: 4}
	if _, ok := s.last(next); ok {
		t.Error("of another incarnation it is known")
	}
	s.due([]hypervisor.Ref{next}, at)
	s.saw(r, 7, nil, at) // a look that was under way
	if was, _ := s.last(next); was.known {
		t.Error("what was seen of the last incarnation counts for the next")
	}
	s.due(nil, at)
	if len(s.all) != 0 {
		t.Error("guests that are gone are remembered")
	}
}
