"""Invoicing: closed periods become invoices that never change again, their PDFs, and the facts dashboards read.

`run_invoicing` asks (one request per tenant and period), `invoice_period` bills what was not billed before,
`render_invoice` makes the PDF from the stored snapshot, `settle_invoice` closes the circle.
"""
