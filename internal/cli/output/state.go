package output

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ANSI colours (ECMA-48): understood by every terminal of today.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	grey   = "\x1b[90m"
	bold   = "\x1b[1m"
	reset  = "\x1b[0m"
)

// colours of states: good, under way, look here, at rest.
var colours = map[string]string{
	"running": green, "ready": green, "succeeded": green, "done": green, "intact": green, "ok": green,
	"pending": yellow, "provisioning": yellow, "starting": yellow, "stopping": yellow, "paused": yellow,
	"migrating": yellow, "restoring": yellow, "deleting": yellow, "queued": yellow, "waiting": yellow,
	"unwinding": yellow, "uploading": yellow, "cordoned": yellow, "undoing": yellow,
	"failed": red, "unknown": red, "needs_attention": red, "broken": red, "denied": red,
	"stopped": grey, "suspended": grey, "cancelled": grey, "revoked": grey, "expired": grey, "undone": grey,
}

// State colours a word that names a state.
func (p Printer) State(word string) string {
	colour, known := colours[word]
	if !p.Colour || !known {
		return word
	}
	return colour + word + reset
}

// Bold makes a heading stand out.
func (p Printer) Bold(s string) string {
	if !p.Colour {
		return s
	}
	return bold + s + reset
}

// Age says how long ago something was, with the one unit that matters: 45s, 12m,
// 7h, 3d, 2y.
func Age(now, then time.Time) string {
	if then.IsZero() {
		return ""
	}
	return Duration(now.Sub(then))
}

// Duration says how long something took or lasts, like Age.
func Duration(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	case d < 2*365*24*time.Hour:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	default:
		return strconv.Itoa(int(d/(365*24*time.Hour))) + "y"
	}
}

// Share says how much of a whole is used: "3 of 64".
func Share(used, whole string) string { return used + " of " + whole }

// Labels prints labels in the order of their keys.
func Labels(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	pairs := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, k+"="+labels[k])
	}
	return strings.Join(pairs, ",")
}

// Bar draws progress in percent, width characters wide.
func Bar(percent, width int) string {
	percent = min(max(percent, 0), 100)
	full := int(math.Round(float64(percent) * float64(width) / 100))
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", full), strings.Repeat("-", width-full), percent)
}
