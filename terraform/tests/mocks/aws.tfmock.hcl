# What a mocked AWS answers, where a test reads it.

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_vpc" {
  defaults = {
    cidr_block              = "10.1.0.0/16"
    cidr_block_associations = [{ association_id = "1", cidr_block = "10.1.0.0/16", state = "associated" }, { association_id = "2", cidr_block = "10.9.0.0/16", state = "associated" }, { association_id = "3", cidr_block = "10.99.0.0/16", state = "disassociated" }]
  }
}

mock_resource "aws_security_group" {
  defaults = { id = "sg-00000000000000000" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
}

mock_resource "aws_sqs_queue" {
  defaults = { arn = "arn:aws:sqs:us-east-1:123456789012:mock", id = "https://sqs.us-east-1.amazonaws.com/123456789012/mock" }
}

mock_resource "aws_scheduler_schedule_group" {
  defaults = { arn = "arn:aws:scheduler:us-east-1:123456789012:schedule-group/mock" }
}

mock_resource "aws_lambda_function" {
  defaults = { arn = "arn:aws:lambda:us-east-1:123456789012:function:mock" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mock" }
}

mock_resource "aws_secretsmanager_secret" {
  defaults = {
    id  = "arn:aws:secretsmanager:us-east-1:123456789012:secret:kong-token"
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:kong-token"
  }
}

mock_resource "aws_elasticache_replication_group" {
  defaults = { primary_endpoint_address = "master.ledger.cache.amazonaws.com" }
}

mock_resource "aws_elasticache_serverless_cache" {
  defaults = { endpoint = [{ address = "ledger.serverless.cache.amazonaws.com", port = 6379 }] }
}

mock_resource "aws_cloudformation_stack" {
  defaults = {
    outputs = {
      SecretArn   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:generated"
      UserGroupId = "ledger-users"
      ChannelArn  = "arn:aws:cloudtrail:us-east-1:123456789012:channel/created"
      StoreArn    = "arn:aws:cloudtrail:us-east-1:123456789012:eventdatastore/created"
    }
  }
}

mock_resource "aws_lb" {
  defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/mock/1", arn_suffix = "app/mock/1", dns_name = "internal-mock.us-east-1.elb.amazonaws.com" }
}

mock_resource "aws_lb_target_group" {
  defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/mock/1", arn_suffix = "targetgroup/mock/1" }
}
