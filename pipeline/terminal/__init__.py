"""Everything that knows rich: lines, tables, progress."""
