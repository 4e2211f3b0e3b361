package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/near"
)

// filter makes a condition of what a user wrote. param turns a value into a
// parameter and gives its place in the statement: text of users goes nowhere else.
type filter func(value string, param func(any) string) (string, error)

// maxWords bounds how many words one filter takes.
const maxWords = 100

// words parts what a user wrote at commas.
func words(value string) ([]string, error) {
	parts := strings.Split(value, ",")
	if len(parts) > maxWords {
		return nil, errs.New(errs.InvalidFilter, "at most %d words, parted by commas", maxWords)
	}
	if slices.Contains(parts, "") {
		return nil, errs.New(errs.InvalidFilter, "a word is missing; several are parted by one comma each")
	}
	return parts, nil
}

// exactly takes one value as it is.
func exactly(column string) filter {
	return func(value string, param func(any) string) (string, error) {
		return column + " = " + param(value), nil
	}
}

// anyOf takes one or several values.
func anyOf(column string) filter {
	return func(value string, param func(any) string) (string, error) {
		all, err := words(value)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s = ANY(%s::text[])", column, param(all)), nil
	}
}

// oneOf takes one or several values of a fixed set; what is called so that a
// refusal can say what was refused.
func oneOf(column, what string, set ...string) filter {
	return func(value string, param func(any) string) (string, error) {
		all, err := choices(value, what, set)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s = ANY(%s::text[])", column, param(all)), nil
	}
}

func choices(value, what string, set []string) ([]string, error) {
	all, err := words(value)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		if !slices.Contains(set, w) {
			return nil, errs.New(errs.InvalidFilter, "there is no %s %q%s; there are: %s",
				what, errs.Clip(w), near.Hint(w, slices.Values(set)), strings.Join(set, ", "))
		}
	}
	return all, nil
}

// named takes one or several names; one that ends with '*' stands for all that
// begin so.
func named(column string) filter {
	return func(value string, param func(any) string) (string, error) {
		all, err := words(value)
		if err != nil {
			return "", err
		}
		var whole, conds []string
		for _, w := range all {
			prefix, open := strings.CutSuffix(w, "*")
			switch {
			case strings.Contains(prefix, "*"):
				return "", errs.New(errs.InvalidFilter, "%q: a '*' stands at the end of a name alone", errs.Clip(w))
			case open:
				conds = append(conds, fmt.Sprintf("starts_with(%s, %s)", column, param(prefix)))
			default:
				whole = append(whole, w)
			}
		}
		if len(whole) > 0 {
			conds = append(conds, fmt.Sprintf("%s = ANY(%s::text[])", column, param(whole)))
		}
		return "(" + strings.Join(conds, " OR ") + ")", nil
	}
}

// labelled takes one or several labels that must all be there: key, or key=value.
func labelled(column string) filter {
	return func(value string, param func(any) string) (string, error) {
		all, err := words(value)
		if err != nil {
			return "", err
		}
		var conds []string
		for _, w := range all {
			k, v, whole := strings.Cut(w, "=")
			if k == "" {
				return "", errs.New(errs.InvalidFilter, "%q is not a label: write key or key=value", errs.Clip(w))
			}
			if !whole {
				conds = append(conds, fmt.Sprintf("%s ? %s", column, param(k)))
				continue
			}
			pair, err := json.Marshal(map[string]string{k: v})
			if err != nil {
				return "", errs.New(errs.Internal, "a label cannot be written").Because(err)
			}
			conds = append(conds, fmt.Sprintf("%s @> %s::jsonb", column, param(string(pair))))
		}
		return strings.Join(conds, " AND "), nil
	}
}

func asText[S ~string](all []S) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = string(s)
	}
	return out
}

func jobStates() []string { return asText(job.States()) }

func vmStates() []string { return asText(vm.States()) }

func imageStates() []string {
	return asText([]image.State{image.Uploading, image.Ready, image.Deleting})
}
