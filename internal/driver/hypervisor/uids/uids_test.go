package uids

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/novacron/novacron/internal/vocab/errs"
)

func pool(t *testing.T, dir string, count int) *Pool {
	t.Helper()
	p, err := Open(dir, Range{First: 70000, Count: count})
	if err != nil {
		t.Fatal(err)
	}
	p.inUse = func(int) bool { return false }
	return p
}

func owner(t *testing.T) string {
	t.Helper()
	return t.TempDir()
}

func claim(t *testing.T, p *Pool, who string) int {
	t.Helper()
	uid, err := p.Claim(who)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func TestEachOwnerHasOneOfItsOwn(t *testing.T) {
	p := pool(t, t.TempDir(), 3)
	a, b, c := owner(t), owner(t), owner(t)
	got := map[int]bool{claim(t, p, a): true, claim(t, p, b): true, claim(t, p, c): true}
	if len(got) != 3 {
		t.Fatalf("three owners share %v", got)
	}
	if again := claim(t, p, a); !got[again] {
		t.Fatalf("the same owner got another uid, %d", again)
	}
	if _, err := p.Claim(owner(t)); !errs.Is(err, errs.NoSpace) {
		t.Fatalf("a fourth of three: %v", err)
	}
	if err := p.Release(b); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(b); err != nil {
		t.Fatalf("releasing twice: %v", err)
	}
	claim(t, p, owner(t))
}

func TestLentToOther(t *testing.T) {
	p := pool(t, t.TempDir(), 4)
	a, b := owner(t), owner(t)
	uid := claim(t, p, a)
	for who, want := range map[string]bool{a: false, b: true} {
		if got, err := p.LentToOther(uid, who); err != nil || got != want {
			t.Errorf("lent to other: %v, %v, want %v", got, err, want)
		}
	}
	if err := p.Release(a); err != nil {
		t.Fatal(err)
	}
	for _, free := range []int{uid, 0} {
		if got, err := p.LentToOther(free, b); err != nil || got {
			t.Errorf("%d is lent: %v, %v", free, got, err)
		}
	}
}

func TestAgentsOfOneMachineShareNothing(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	got := map[int]int{}
	var wg sync.WaitGroup
	for range 4 {
		p := pool(t, dir, 64)
		for range 8 {
			who := owner(t)
			wg.Go(func() {
				uid, err := p.Claim(who)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got[uid]++
			})
		}
	}
	wg.Wait()
	if len(got) != 32 {
		t.Fatalf("32 owners have %d uids: %v", len(got), got)
	}
}

func TestDeadOwnersClaimsAreTakenBack(t *testing.T) {
	p := pool(t, t.TempDir(), 1)
	dead := filepath.Join(t.TempDir(), "vm")
	if err := os.Mkdir(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	uid := claim(t, p, dead)
	if _, err := p.Claim(owner(t)); !errs.Is(err, errs.NoSpace) {
		t.Fatalf("a live owner's uid was given away: %v", err)
	}
	if err := os.Remove(dead); err != nil {
		t.Fatal(err)
	}
	p.inUse = func(int) bool { return true }
	if _, err := p.Claim(owner(t)); !errs.Is(err, errs.NoSpace) {
		t.Fatalf("a uid under which a process runs was given away: %v", err)
	}
	p.inUse = func(int) bool { return false }
	if got := claim(t, p, owner(t)); got != uid {
		t.Fatalf("got %d, want the dead owner's %d", got, uid)
	}
}

func TestHalfMadeClaimIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	p := pool(t, dir, 1)
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(70000)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	claim(t, p, owner(t))
}

// A scouted uid is the next one given, once, unless somebody took it meanwhile.
func TestScout(t *testing.T) {
	dir := t.TempDir()
	p, other := pool(t, dir, 2), pool(t, dir, 2)
	looked := 0
	p.inUse = func(int) bool { looked++; return false }
	for p.scouted == 0 {
		p.Scout()
	}
	want := p.scouted
	looked = 0
	if got := claim(t, p, owner(t)); got != want || looked != 0 {
		t.Errorf("got %d after %d looks, want the scouted %d after none", got, looked, want)
	}
	last := 70000 + 70001 - want
	for p.scouted != last {
		p.Scout()
	}
	if got := claim(t, other, owner(t)); got != last {
		t.Fatalf("got %d, want %d", got, last)
	}
	if _, err := p.Claim(owner(t)); !errs.Is(err, errs.NoSpace) {
		t.Errorf("a uid that was taken after it was scouted was given again: %v", err)
	}
}

// A claim of an earlier agent is found again.
func TestEarlierClaimsAreKnown(t *testing.T) {
	dir := t.TempDir()
	who := owner(t)
	uid := claim(t, pool(t, dir, 64), who)
	if got := claim(t, pool(t, dir, 64), who); got != uid {
		t.Errorf("got %d, want %d as before", got, uid)
	}
	if err := pool(t, dir, 64).Release(who); err != nil {
		t.Fatal(err)
	}
	if left, err := pool(t, dir, 64).Owners(); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRunningSeesOurselves(t *testing.T) {
	if !running(os.Getuid()) {
		t.Fatal("our own uid counts as unused")
	}
	if running(3999999999) {
		t.Fatal("a uid of nobody counts as used")
	}
}
