# From the first integration's state to this one.
#
# Carried over: the function, its log, the subnet group and the security group.
#
# Not carried over, and so destroyed by the first apply:
# - aws_elasticache_replication_group.rg. Its keys mark entries as delivered that never were, and it has no encryption in
#   transit, which its version cannot be given later. The new ledger starts empty; --start-at chooses how much of what
#   Kong still holds is delivered again.
# - aws_iam_role.iam_role. Policies that it holds as blocks would stay attached to it unseen; a new role has none.
# - the EventBridge rule, its target and permission. EventBridge Scheduler takes their place.

moved {
  from = aws_lambda_function.lambda
  to   = aws_lambda_function.relay[0]
}

moved {
  from = aws_cloudwatch_log_group.lambda_logs
  to   = aws_cloudwatch_log_group.relay
}

moved {
  from = aws_elasticache_subnet_group.el_cache_subnet_group
  to   = aws_elasticache_subnet_group.ledger[0]
}

# It gets the name of var.security_group, which the first integration asked for and did not use. So it is replaced, the
# new one first.
moved {
  from = aws_security_group.allow_lambda
  to   = aws_security_group.relay
}

# The audit log group is in a CloudFormation stack now. The group stays: set audit_log_group_exists to go on with it.
removed {
  from = aws_cloudwatch_log_group.audit

  lifecycle {
    destroy = false
  }
}

# The earliest version made an event data store. It holds audit records: Terraform lets go of it and leaves it where it is.
removed {
  from = aws_cloudtrail_event_data_store.event_store

  lifecycle {
    destroy = false
  }
}
