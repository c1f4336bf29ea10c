"""The report: one page that shows what a workspace holds."""
