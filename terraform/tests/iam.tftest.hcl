# Least privilege: every role, every statement.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "relay" {
  assert {
    condition = jsondecode(aws_iam_role_policy.relay.policy).Statement[0] == {
      Sid      = "Deliver"
      Effect   = "Allow"
      Action   = ["cloudtrail-data:PutAuditEvents"]
      Resource = ["arn:aws:cloudtrail:us-east-1:123456789012:channel/c"]
    }
    error_message = "PutAuditEvents on that channel, and nothing else of CloudTrail"
  }

  assert {
    condition = toset(flatten([for s in jsondecode(aws_iam_role_policy.relay.policy).Statement : s.Action])) == toset([
      "cloudtrail-data:PutAuditEvents", "secretsmanager:GetSecretValue", "logs:CreateLogStream", "logs:PutLogEvents", "lambda:InvokeFunction", "sqs:SendMessage",
    ])
    error_message = "the relay's actions, all of them"
  }

  assert {
    condition     = alltrue([for r in flatten([for s in jsondecode(aws_iam_role_policy.relay.policy).Statement : s.Resource]) : startswith(r, "arn:") && (!strcontains(r, "*") || r == "arn:aws:logs:us-east-1:123456789012:log-group:mock:*")])
    error_message = "each statement names its resources; only the streams of its own log group are a wildcard"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.relay.policy).Statement[3].Resource == ["arn:aws:lambda:us-east-1:123456789012:function:relay"]
    error_message = "it invokes itself and no other function"
  }

  assert {
    condition = toset(jsondecode(aws_iam_role_policy.relay.policy).Statement[1].Resource) == toset([
      "arn:aws:secretsmanager:us-east-1:123456789012:secret:kong-token", "arn:aws:secretsmanager:us-east-1:123456789012:secret:generated",
    ])
    error_message = "it reads its own secrets"
  }

  assert {
    condition     = jsondecode(aws_iam_role.relay.assume_role_policy).Statement[0].Principal.Service == "lambda.amazonaws.com"
    error_message = "Lambda takes the role"
  }
}

run "network_interfaces" {
  assert {
    condition     = alltrue([for a in jsondecode(aws_iam_role_policy.network[0].policy).Statement[0].Action : startswith(a, "ec2:")]) && length(jsondecode(aws_iam_role_policy.network[0].policy).Statement) == 2
    error_message = "EC2 only"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.network[0].policy).Statement[1].Effect == "Deny" && jsondecode(aws_iam_role_policy.network[0].policy).Statement[1].Condition.ArnEquals["lambda:SourceFunctionArn"] == "arn:aws:lambda:us-east-1:123456789012:function:relay"
    error_message = "and not for the function's code"
  }
}

run "scheduler" {
  assert {
    condition     = jsondecode(aws_iam_role.scheduler[0].assume_role_policy).Statement[0].Principal.Service == "scheduler.amazonaws.com" && jsondecode(aws_iam_role.scheduler[0].assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "123456789012"
    error_message = "Scheduler takes the role, for this account"
  }

  assert {
    condition     = flatten([for s in jsondecode(aws_iam_role_policy.scheduler[0].policy).Statement : s.Action]) == ["lambda:InvokeFunction", "sqs:SendMessage"] && jsondecode(aws_iam_role_policy.scheduler[0].policy).Statement[0].Resource == ["arn:aws:lambda:us-east-1:123456789012:function:relay"]
    error_message = "it invokes the relay and writes to the queue"
  }
}

run "plugin" {
  assert {
    condition     = jsondecode(output.plugin_invoke_policy_json).Statement == [{ Sid = "Trigger", Effect = "Allow", Action = ["lambda:InvokeFunction"], Resource = ["arn:aws:lambda:us-east-1:123456789012:function:relay"] }]
    error_message = "the plugin may invoke the relay, no more"
  }

  assert {
    condition     = length(aws_iam_role_policy_attachment.plugin_invoke) == 0
    error_message = "attached only to a role that was named"
  }
}

run "plugin_with_role_and_url" {
  variables {
    plugin_role_name = "kong"
    function_url     = true
  }

  assert {
    condition     = aws_iam_role_policy_attachment.plugin_invoke[0].role == "kong" && aws_lambda_function_url.relay[0].authorization_type == "AWS_IAM"
    error_message = "attached; the URL asks for IAM"
  }

  assert {
    condition     = jsondecode(aws_iam_policy.plugin_invoke[0].policy).Statement[1].Condition.StringEquals["lambda:FunctionUrlAuthType"] == "AWS_IAM"
    error_message = "the URL's permission as well"
  }
}

run "customer_managed_key" {
  variables {
    kms_key_arn      = "arn:aws:kms:us-east-1:123456789012:key/k"
    cache_generation = 2
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.relay.policy).Statement : s.Resource if s.Sid == "UseKeys"]) == ["arn:aws:kms:us-east-1:123456789012:key/k"]
    error_message = "the relay may use that key"
  }

  assert {
    condition = alltrue([for k in [
      aws_cloudwatch_log_group.relay.kms_key_id, aws_sqs_queue.failed[0].kms_master_key_id, aws_elasticache_replication_group.ledger[0].kms_key_id,
      aws_secretsmanager_secret.kong_admin_token[0].kms_key_id, aws_lambda_function.relay[0].kms_key_arn, aws_scheduler_schedule.reconcile[0].kms_key_arn,
      jsondecode(aws_cloudformation_stack.ledger_user.template_body).Resources.Password.Properties.KmsKeyId,
      jsondecode(aws_cloudformation_stack.trigger_secret[0].template_body).Resources.Secret.Properties.KmsKeyId,
    ] : k == "arn:aws:kms:us-east-1:123456789012:key/k"])
    error_message = "everything that can be encrypted by it is"
  }
}

# The relay's role is what Lambda deletes the function's network interfaces with.
run "role_outlives_the_security_group" {
  command = plan

  assert {
    condition     = length(regexall("(?s)resource \"aws_security_group\" \"relay\" \\{.*?depends_on = \\[aws_iam_role_policy.network, aws_iam_role_policy.relay\\].*?\n\\}", file("${path.module}/network.tf"))) == 1 && aws_security_group.relay.name == "kong-relay"
    error_message = "destroy begins with the group, and ends with the role"
  }
}
