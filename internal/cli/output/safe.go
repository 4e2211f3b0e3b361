package output

import "io"

// Safe passes text on to a terminal without what could move its cursor, rename
// its window or answer in the reader's name: what guests write is theirs, the
// terminal is not. Line ends, returns and tabs stay.
type Safe struct {
	W io.Writer
	// lead is the first byte of what may be a two-byte control (U+0080 to U+009F).
	lead bool
}

const c1Lead = 0xc2

// Write implements io.Writer.
func (s *Safe) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+1)
	for _, b := range p {
		if s.lead {
			s.lead = false
			if b >= 0x80 && b <= 0x9f {
				continue
			}
			out = append(out, c1Lead)
		}
		switch {
		case b == c1Lead:
			s.lead = true
		case b == '\n', b == '\r', b == '\t', b >= ' ' && b != 0x7f:
			out = append(out, b)
		}
	}
	if _, err := s.W.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
