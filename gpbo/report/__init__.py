"""A stored job as one self-contained HTML page: `gpbo.report.page.write`.

axes      where a parameter's values lie on a plot, and its ticks
data      what each plot shows: functions of a record or an optimizer, plain values out
figures   thin painters of that data, with plotly
sections  the parts of the page: plots, tables, words
page      the page around them; no network is needed to look at it
"""
