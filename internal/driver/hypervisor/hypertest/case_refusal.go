package hypertest

import (
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func refusalCases() []testCase {
	return []testCase{
		{"What the driver does not hold is not found", unknown},
	}
}

func unknown(b *bench) {
	r := contract.Ref{VM: id.New(), Epoch: 1}
	calls := b.everyCall(r)
	_, calls["inspect"] = b.Driver().Inspect(b.ctx, r.VM)
	_, calls["log"] = b.Driver().Log(b.ctx, r.VM, true)
	for name, err := range calls {
		if !errs.Is(err, errs.Unsupported) {
			b.wantCode(err, errs.NotFound, name)
		}
	}
	b.clean()
}
