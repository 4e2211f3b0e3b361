package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newImageAlias(a *app) *cobra.Command {
	return group(a, "alias", "Further names of images, which can be moved", newImageAliasSet(a), newImageAliasRemove(a))
}

func newImageAliasSet(a *app) *cobra.Command {
	cmd := leaf("set ALIAS IMAGE", "Give an image an alias, or move one to it", names("ALIAS", "IMAGE"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		i, err := c.Images.SetAlias(cmd.Context(), args[1], args[0])
		if err != nil {
			return err
		}
		if p := a.printer(); p.Format.ForPrograms() {
			return p.Document(i)
		}
		fmt.Fprintf(a.out, "alias %s: image %s\n", args[0], i.Name)
		return nil
	})
	cmd.Long = `Give an image an alias, or move one to it.

Wherever an image is named, an alias of it will do. An alias that another image
has is moved at once; virtual machines stay with the image they were made from.`
	cmd.Example = `  novacron image alias set debian debian-12-20261101`
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}

func newImageAliasRemove(a *app) *cobra.Command {
	cmd := leaf("remove ALIAS", "Remove an alias; the image stays", names("ALIAS"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		if err := c.Images.RemoveAlias(cmd.Context(), args[0], args[0]); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "alias %s: removed\n", args[0])
		return nil
	})
	cmd.Aliases = []string{"rm"}
	cmd.ValidArgsFunction = a.completeImages
	return cmd
}
