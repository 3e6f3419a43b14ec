#!/usr/bin/env -S python3 -ISE
"""Stands in for the AWS command line interface: notes how it was called, and answers what the script waits for."""

import json
import os
import sys

ANSWERS = {
    ("sts", "get-caller-identity"): os.environ["STUB_ACCOUNT"],
    ("kms", "create-key"): os.environ["STUB_KEY"],
    ("kms", "get-key-policy"): '{"Statement": [{"Sid": "Enable IAM User Permissions", "Effect": "Allow"}]}',
    ("cloudtrail", "describe-trails"): "1",
    ("sns", "create-topic"): "arn:aws:sns:eu-central-1:111122223333:topic",
}

with open(os.environ["STUB_LOG"], "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
call = tuple(sys.argv[1:3])
if "-".join(call) == os.environ.get("STUB_DENIES"):
    sys.exit("An error occurred (AccessDeniedException) when calling the operation")
if call == ("kms", "describe-key"):
    if any(argument.startswith("alias/") for argument in sys.argv):
        sys.exit("An error occurred (NotFoundException) when calling the DescribeKey operation")
    print("SYMMETRIC_DEFAULT\tENCRYPT_DECRYPT\tEnabled\tAWS_KMS")
elif call == ("iam", "get-role"):
    sys.exit("An error occurred (NoSuchEntity) when calling the GetRole operation")
else:
    print(ANSWERS.get(call, ""))
