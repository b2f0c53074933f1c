"""`python -m ambdiff.report`, which is no command; the page of an evaluation is ambdiff/evaluation/report.py."""

if __name__ == '__main__':
    from ambdiff import command

    command.elsewhere('report', 'report.html is written by ambdiff evaluate CONFIG and ambdiff score')
