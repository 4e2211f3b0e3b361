package pgpool

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/novacron/novacron/internal/vocab/id"
)

// binaryIDs makes a connection send ids as their 16 bytes. By itself pgx takes an
// id for a driver.Valuer: it writes it as text and parses that again.
func binaryIDs(m *pgtype.Map) {
	m.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapID}, m.TryWrapEncodePlanFuncs...)
}

func wrapID(v any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	u, ok := v.(id.ID)
	if !ok {
		return nil, nil, false
	}
	return &encodeID{}, wireID(u), true
}

type wireID id.ID

// UUIDValue implements pgtype.UUIDValuer.
func (w wireID) UUIDValue() (pgtype.UUID, error) { return pgtype.UUID{Bytes: w, Valid: true}, nil }

type encodeID struct{ next pgtype.EncodePlan }

func (p *encodeID) SetNext(next pgtype.EncodePlan) { p.next = next }

func (p *encodeID) Encode(v any, buf []byte) ([]byte, error) {
	u, ok := v.(id.ID)
	if !ok {
		return nil, fmt.Errorf("a plan for ids was given a %T", v)
	}
	return p.next.Encode(wireID(u), buf)
}
