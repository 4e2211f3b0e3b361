package migration

import "github.com/novacron/novacron/internal/vocab/id"

// Flow is a migration under way, which takes of both of its nodes what they give to
// migrations. Rates are in bytes per second; 0 is no limit.
type Flow struct {
	ID             id.ID
	Source, Target id.ID
	// SourceRate and TargetRate are what each of the nodes gives to all of its migrations,
	// from it and to it, together.
	SourceRate, TargetRate int64
	// Most is what the migration itself is to take.
	Most int64
}

// Limited tells whether a node limits it.
func (f Flow) Limited() bool { return f.SourceRate > 0 || f.TargetRate > 0 }

// Shares gives each migration that a node limits its bytes per second, max-min fair: all get
// the same, until a node of theirs is used up or they have what they are to take; what they
// leave goes to the others. What no node limits is left out: it takes what it can.
func Shares(flows []Flow) map[id.ID]int64 {
	left, users := map[id.ID]int64{}, map[id.ID]int64{}
	var open []Flow
	for _, f := range flows {
		if !f.Limited() {
			continue
		}
		open = append(open, f)
		for n, rate := range f.limits() {
			left[n] = rate
			users[n]++
		}
	}
	out := map[id.ID]int64{}
	for len(open) > 0 {
		level := lowest(open, left, users)
		var next []Flow
		for _, f := range open {
			if !f.ends(level, left, users) {
				next = append(next, f)
				continue
			}
			out[f.ID] = max(1, level)
		}
		for _, f := range open {
			if _, ended := out[f.ID]; !ended {
				continue
			}
			for n := range f.limits() {
				left[n] -= level
				users[n]--
			}
		}
		open = next
	}
	return out
}

// limits are the nodes that limit it, with what they give.
func (f Flow) limits() map[id.ID]int64 {
	out := map[id.ID]int64{}
	if f.SourceRate > 0 {
		out[f.Source] = f.SourceRate
	}
	if f.TargetRate > 0 {
		out[f.Target] = f.TargetRate
	}
	return out
}

// lowest is the least that all which are open can have before one of them cannot have more.
func lowest(open []Flow, left, users map[id.ID]int64) int64 {
	least := int64(-1)
	consider := func(level int64) {
		if least < 0 || level < least {
			least = max(0, level)
		}
	}
	for _, f := range open {
		if f.Most > 0 {
			consider(f.Most)
		}
		for n := range f.limits() {
			consider(left[n] / users[n])
		}
	}
	return least
}

// ends tells whether a flow has no more than a level.
func (f Flow) ends(level int64, left, users map[id.ID]int64) bool {
	if f.Most > 0 && f.Most <= level {
		return true
	}
	for n := range f.limits() {
		if left[n]/users[n] <= level {
			return true
		}
	}
	return false
}
