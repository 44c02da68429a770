"""OpenTelemetry's spans, named as its semantic conventions for HTTP and generative AI say.

Texts of requests and answers are in none of them, nor are the words of errors, which may quote those.
"""
